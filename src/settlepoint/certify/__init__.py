"""Bounds, proofs, verdicts and penalties: how far an answer may be trusted."""

from settlepoint.certify import attention, elementwise, linear_maps, message_passing, normalisation, products, shapes
from settlepoint.certify.attention import l2_attention_norm
from settlepoint.certify.automatic import METHODS, certificate
from settlepoint.certify.ball import ball
from settlepoint.certify.banach import after_step, banach, contraction_bound, distance_after, steps_needed
from settlepoint.certify.certificate import Certificate, Refused
from settlepoint.certify.comparison import bielecki, perron
from settlepoint.certify.construction import Blend, Bounded, contractive
from settlepoint.certify.displacement import Displacement, displacement, exclusion_radius
from settlepoint.certify.following import traced
from settlepoint.certify.graph import graph
from settlepoint.certify.jacobian import jacobians, lipschitz_estimate, power_bound, spectral_radius
from settlepoint.certify.kantorovich import kantorovich
from settlepoint.certify.koopman import koopman_rate
from settlepoint.certify.krylov import newton_krylov
from settlepoint.certify.lipschitz import Region, curvature_upper, lipschitz_upper
from settlepoint.certify.nodewise import nodewise
from settlepoint.certify.norms import convolution_norm, nonnegative_norm, perron_bound, spectral_norm
from settlepoint.certify.penalty import jacobian_penalty
from settlepoint.certify.polynomial import best_rate, class_rate, matrix_rate, residual_polynomial
from settlepoint.certify.projection import project_, projected
from settlepoint.certify.subject import Posed, Subject
from settlepoint.certify.thomson import subhomogeneity, thomson, thomson_distance
from settlepoint.certify.traced import Traced, guard, rule
from settlepoint.certify.verdict import Verdict, verdict

__all__ = [
    "METHODS",
    "Blend",
    "Bounded",
    "Certificate",
    "Displacement",
    "Posed",
    "Refused",
    "Region",
    "Subject",
    "Traced",
    "Verdict",
    "after_step",
    "attention",
    "ball",
    "banach",
    "best_rate",
    "bielecki",
    "certificate",
    "class_rate",
    "contraction_bound",
    "contractive",
    "convolution_norm",
    "curvature_upper",
    "displacement",
    "distance_after",
    "elementwise",
    "exclusion_radius",
    "graph",
    "guard",
    "jacobian_penalty",
    "jacobians",
    "kantorovich",
    "koopman_rate",
    "l2_attention_norm",
    "linear_maps",
    "lipschitz_estimate",
    "lipschitz_upper",
    "matrix_rate",
    "message_passing",
    "newton_krylov",
    "nodewise",
    "nonnegative_norm",
    "normalisation",
    "perron",
    "perron_bound",
    "power_bound",
    "products",
    "project_",
    "projected",
    "residual_polynomial",
    "rule",
    "shapes",
    "spectral_norm",
    "spectral_radius",
    "steps_needed",
    "subhomogeneity",
    "thomson",
    "thomson_distance",
    "traced",
    "verdict",
]
