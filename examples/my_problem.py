"""A problem of your own for `settle tune`: the power flow of a distribution feeder under changing loads.

    settle tune examples/my_problem.py:family -o feeder.safetensors
    settle solve examples/my_problem.py:family --solver feeder.safetensors

Whoever plans a feeder solves its power flow thousands of times: one network, one load profile after another. With
v = 1 + u the voltages of the buses (in units of the substation's, as complex numbers) and p + jq what each bus draws,

    u = -Z conj((p + jq) / v)        (Z-bus Gauss: the currents of constant-power loads through the impedances Z)

which is a fixed-point problem as it stands.
"""

import torch

from settlepoint.problems import from_callable

# 1. What all problems share: a main line of 10 buses and two branches of 4, with impedances made up here.
PARENT = [-1, *range(9), 3, *range(10, 13), 6, *range(14, 17)]  # the bus that feeds each bus; -1: the substation
SEGMENT = complex(0.009, 0.006)  # resistance and reactance of each piece of line


def impedances() -> torch.Tensor:
    """Z[i, j]: what the ways from the substation to i and to j have in common."""
    way = torch.zeros(len(PARENT), len(PARENT), dtype=torch.float64)
    for bus, parent in enumerate(PARENT):
        way[bus] = way[parent] if parent >= 0 else 0.0
        way[bus, bus] = 1.0
    return way @ way.T


SHARED = impedances()
R, X = SEGMENT.real * SHARED, SEGMENT.imag * SHARED


# 2. One step x = f(x, parameters), for many problems at once: a row each, here x = (real, imaginary part of u).
def currents_to_voltages(x, parameters):
    u, w = x.chunk(2, dim=1)
    p, q = parameters["p"], parameters["q"]
    v = 1 + u
    size = v * v + w * w
    real, imaginary = (p * v + q * w) / size, (p * w - q * v) / size  # of conj((p + jq) / (v + jw))
    return -torch.cat((real @ R - imaginary @ X, real @ X + imaginary @ R), dim=1)


# 3. Where your problems come from: n of them, everything random from the generator, a row a problem.
def loads(n, generator):
    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    buses = len(PARENT)
    p = 0.12 * uniform(0.3, 1.0, n, 1) * uniform(0.5, 1.5, n, buses)  # the hour, then each customer
    q = p * uniform(0.2, 0.5, n, buses)
    return {"x0": torch.zeros(n, 2 * buses, dtype=torch.float64), "parameters": {"p": p, "q": q}}


# 4. The family. form="root" would solve f(x) = 0 instead, form="rhs" integrate x' = f(x) with step sizes "h".
family = from_callable(currents_to_voltages, loads, name="feeder")
