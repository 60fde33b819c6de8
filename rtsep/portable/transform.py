"""Windowed Fourier transforms of real frames as products with constant matrices.

A transform of ``rows * columns`` samples is two products, over rows and over columns of the frame,
with the windows and the twiddle factors inside the first matrix (J. W. Cooley and J. W. Tukey, "An
algorithm for the machine calculation of complex Fourier series", Mathematics of Computation 19,
1965). So the matrices have about ``length ** 1.5`` values, where a single one has ``length ** 2``.

With ``n = columns * i + j`` and ``k = rows * l + m``, a bin is

    X[k] = sum_j exp(-2i pi l j / columns) sum_i x[n] exp(-2i pi m (i / rows + j / length))
"""

from __future__ import annotations

from math import isqrt

import numpy as np

from rtsep.learned.onnxgraph import Writer
from rtsep.spec import Float32, Float64


def split(length: int) -> tuple[int, int]:
    """Return rows and columns of a frame of ``length`` samples; the columns are even.

    Their product is ``length``, and they are as close to each other as possible.
    """
    best = next(rows for rows in range(isqrt(length), 0, -1) if length % (2 * rows) == 0)
    return best, length // best


def _turns(*factors: Float64) -> tuple[Float64, Float64]:
    """Real and imaginary parts of ``exp(-2i pi t)`` for the sum ``t`` of the factors."""
    angle = 2 * np.pi * np.add.reduce(np.broadcast_arrays(*factors))
    return np.cos(angle), -np.sin(angle)


def analysis(window: Float32) -> tuple[Float32, Float32]:
    """Return the matrices of a windowed forward transform.

    Parameters
    ----------
    window
        (length,) analysis window.

    Returns
    -------
    first
        (columns, rows, 2 * rows), for the samples of each column.
    second
        (2 * columns, 2 * (columns // 2 + 1)).
    """
    length = window.size
    rows, columns = split(length)
    i, j, m = np.arange(rows), np.arange(columns), np.arange(rows)
    turn = np.outer(i, m)[None] / rows + np.outer(j, m)[:, None] / length
    real, imaginary = _turns(turn)
    shape = window.reshape(rows, columns).T[:, :, None]
    first = np.concatenate([shape * real, shape * imaginary], axis=2)
    real, imaginary = _turns(np.outer(j, np.arange(columns // 2 + 1)) / columns)
    second = np.block([[real, imaginary], [-imaginary, real]])
    return first.astype(np.float32), second.astype(np.float32)


def synthesis(length: int, window: Float32) -> tuple[Float32, Float32]:
    """Return the matrices of an inverse transform, windowed at the end of the frame.

    Parameters
    ----------
    length
        Samples of a frame.
    window
        (synthesis_length,) synthesis window, for the last samples.

    Returns
    -------
    first
        (rows, 2 * (columns // 2 + 1), 2 * columns), for the bins ``rows * l + m`` of each ``m``.
    second
        (columns, 2 * rows, rows).
    """
    rows, columns = split(length)
    i, j, m, wave = (
        np.arange(rows),
        np.arange(columns),
        np.arange(rows),
        np.arange(columns // 2 + 1),
    )
    bins = rows * wave[None] + m[:, None]
    # A bin stands for its mirror image too, except the first and the last, which are real.
    weight = np.where(bins > length // 2, 0.0, np.where(bins % (length // 2), 2.0, 1.0)) / length
    real, imaginary = _turns(np.outer(wave, j) / columns)
    joint = np.block([[real, -imaginary], [imaginary, real]])
    first = joint[None] * np.tile(weight, 2)[:, :, None]
    turn = np.outer(m, i)[None] / rows + np.outer(j, m)[:, :, None] / length
    real, imaginary = _turns(turn)
    whole = np.zeros(length)
    whole[length - window.size :] = window
    shape = whole.reshape(rows, columns).T[:, None]
    second = np.concatenate([shape * real, shape * imaginary], axis=1)
    return first.astype(np.float32), second.astype(np.float32)


def forward(g: Writer, samples: str, window: Float32) -> str:
    """Add a transform of (frames, length) samples to (frames, 2, bins)."""
    rows, columns = split(window.size)
    bins = window.size // 2 + 1
    first, second = analysis(window)
    x = g("Reshape", samples, g.integers(-1, rows, columns))
    x = g("Transpose", x, perm=[2, 0, 1])
    x = g("MatMul", x, g.number(first))
    x = g("Reshape", x, g.integers(columns, -1, 2, rows))
    x = g("Transpose", x, perm=[1, 3, 2, 0])
    x = g("Reshape", x, g.integers(-1, rows, 2 * columns))
    x = g("MatMul", x, g.number(second))
    x = g("Reshape", x, g.integers(-1, rows, 2, columns // 2 + 1))
    x = g("Transpose", x, perm=[0, 2, 3, 1])
    x = g("Reshape", x, g.integers(-1, 2, (columns // 2 + 1) * rows))
    if rows > 1:
        x = g("Slice", x, g.integers(0), g.integers(bins), g.integers(2))
    return x


def inverse(g: Writer, spectra: str, length: int, window: Float32) -> str:
    """Add a transform of (frames, 2, bins) to the last, windowed (frames, synthesis_length)."""
    rows, columns = split(length)
    waves = columns // 2 + 1
    first, second = synthesis(length, window)
    x = spectra
    if rows > 1:
        x = g("Pad", x, g.integers(0, 0, 0, 0, 0, rows - 1))
    x = g("Reshape", x, g.integers(-1, 2, waves, rows))
    x = g("Transpose", x, perm=[3, 0, 1, 2])
    x = g("Reshape", x, g.integers(rows, -1, 2 * waves))
    x = g("MatMul", x, g.number(first))
    x = g("Reshape", x, g.integers(rows, -1, 2, columns))
    x = g("Transpose", x, perm=[3, 1, 2, 0])
    x = g("Reshape", x, g.integers(columns, -1, 2 * rows))
    x = g("MatMul", x, g.number(second))
    x = g("Transpose", x, perm=[1, 2, 0])
    x = g("Reshape", x, g.integers(-1, length))
    if window.size < length:
        start = length - window.size
        x = g("Slice", x, g.integers(start), g.integers(length), g.integers(1))
    return x
