"""Bounds, proofs and estimates: how far an answer may be trusted."""

from settlepoint.certify import elementwise, linear_maps, message_passing, normalisation, products, shapes  # rules
from settlepoint.certify.automatic import certificate
from settlepoint.certify.ball import ball
from settlepoint.certify.banach import after_step, banach, contraction_bound, distance_after, steps_needed
from settlepoint.certify.certificate import Certificate, CertificateWarning, Refused
from settlepoint.certify.comparison import bielecki, perron
from settlepoint.certify.displacement import Displacement, displacement, exclusion_radius
from settlepoint.certify.graph import graph
from settlepoint.certify.jacobian import jacobians, lipschitz_estimate, power_bound, spectral_radius
from settlepoint.certify.kantorovich import kantorovich
from settlepoint.certify.krylov import newton_krylov
from settlepoint.certify.lipschitz import Region, curvature_upper, lipschitz_upper
from settlepoint.certify.norms import convolution_norm, spectral_norm
from settlepoint.certify.polynomial import best_rate, class_rate, matrix_rate, residual_polynomial
from settlepoint.certify.thomson import subhomogeneity, thomson, thomson_distance
from settlepoint.certify.traced import Traced, guard, rule, traced
