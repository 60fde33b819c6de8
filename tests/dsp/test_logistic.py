"""The rational functions against NumPy's."""

import numpy as np
from numba import njit

from rtsep.dsp.logistic import logistic, tanh


@njit
def both(x: np.ndarray, t: np.ndarray, s: np.ndarray) -> None:
    for i in range(x.size):
        t[i], s[i] = tanh(x[i]), logistic(x[i])


def test_they_are_those_of_numpy() -> None:
    x = np.concatenate([np.linspace(-20, 20, 100001), [-1e30, -0.0, 0.0, 1e-30, 1e30]]).astype("f4")
    t, s = np.empty_like(x), np.empty_like(x)
    both(x, t, s)
    exact = np.clip(x.astype(float), -500, 500)
    np.testing.assert_allclose(t, np.tanh(exact), atol=4e-7)
    np.testing.assert_allclose(s, 1 / (1 + np.exp(-exact)), atol=4e-7)
    assert np.max(np.abs(t)) <= 1.0 and np.min(s) >= 0.0 and np.max(s) <= 1.0
