"""Hyperbolic tangent and logistic function for kernels, in a form that is vectorised.

The tangent is the rational function of degree 13 over 6 of Eigen (``generic_fast_tanh_float``),
clamped where float32 reaches 1; its error is below 3e-7.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rtsep.dsp.kernel import FAST, kernel


@kernel(forceinline=True, **FAST)
def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent of a float32."""
    x = min(max(x, np.float32(-7.9)), np.float32(7.9))
    s = x * x
    p = np.float32(-2.76076847742355e-16) * s + np.float32(2.00018790482477e-13)
    p = p * s + np.float32(-8.60467152213735e-11)
    p = p * s + np.float32(5.12229709037114e-08)
    p = p * s + np.float32(1.48572235717979e-05)
    p = p * s + np.float32(6.37261928875436e-04)
    p = p * s + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06) * s + np.float32(1.18534705686654e-04)
    q = q * s + np.float32(2.26843463243900e-03)
    q = q * s + np.float32(4.89352518554385e-03)
    return x * p / q


@kernel(forceinline=True, **FAST)
def logistic(x: Any) -> Any:
    """Return ``1 / (1 + exp(-x))`` of a float32."""
    half = np.float32(0.5)
    return half + half * tanh(half * x)
