"""The standard normal by its inverse distribution function.

Wichura, Algorithm AS 241 (Applied Statistics 37, 1988), routine PPND16. The tail's logarithm is our own, so the whole
function is + - * / sqrt: every route gives the same bits. It is monotone in u, one number for one uniform.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .elementary import horner, log, sqrt

CENTRE, SPLIT = 0.425, 5.0
# fmt: off
A = (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3)
B = (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3)
C = (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4)
D = (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9)
E = (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7)
F = (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15)
# fmt: on


def normal64(u: Tensor) -> Tensor:
    """The quantile of the standard normal at u in (0, 1), float64."""
    q = u - 0.5
    r = 0.180625 - q * q
    centre = q * horner(r, A) / horner(r, B)
    out = ~(q.abs() <= CENTRE)  # one in seven: the tail's logarithm and root are worked out for these alone
    v = u[out]
    tail = sqrt(-log(torch.minimum(v, 1.0 - v)))
    near, far = tail - 1.6, tail > SPLIT
    outer = horner(near, C) / horner(near, D)
    if bool(far.any()):
        further = tail - SPLIT
        outer = torch.where(far, horner(further, E) / horner(further, F), outer)
    return centre.masked_scatter(out, torch.where(q[out] < 0.0, -outer, outer))
