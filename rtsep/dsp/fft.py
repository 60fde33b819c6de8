"""Compiled Fourier transform of real frames: a mixed-radix Stockham FFT of half the length.

It works on separate planes of real and imaginary parts, so that the compiler vectorises it, and on
given arrays, without allocation or lock (P. N. Swarztrauber, "FFT algorithms for vector computers",
Parallel Computing 1, 1984). A stage of radix ``r`` joins transforms of length ``span``: it reads
(r, rest, span) and writes (rest, r, span).
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import types

from rtsep.dsp.kernel import FAST, array, inner, kernel
from rtsep.dsp.radices import factorise
from rtsep.spec import Float32, Int64

_HALF = np.float32(0.5)
_ROOT_HALF = np.float32(sqrt(0.5))
PLAN = array(1, types.int64), array(1), array(3)
"""Types of the arrays that `plan` returns."""


def plan(length: int) -> tuple[Int64, Float32, Float32]:
    """Compute tables and allocate work space for real transforms of ``length`` samples.

    Returns
    -------
    factors
        (stages,) int64, see `rtsep.dsp.radices`.
    twiddles
        (size,) float32, planes of real and imaginary parts: for every stage of radix ``r``
        ``exp(-2j pi j k / (r span))`` as (2, r, span) and ``exp(-2j pi j / r)`` as (2, r), then
        ``exp(-2j pi k / length)`` as (2, length // 2) for the real transform.
    work
        (3, 2, length // 2) float32: two complex buffers used alternately, and a frame of samples.
    """
    factors = factorise(length)
    turns, span = [], 1
    for radix in factors:
        leg = np.arange(radix)
        turns += [np.outer(leg, np.arange(span)) / (radix * span), leg / radix]
        span *= radix
    turns.append(np.arange(span) / length)
    angles = [-2 * np.pi * turn.ravel() for turn in turns]
    twiddles = np.concatenate([part(angle) for angle in angles for part in (np.cos, np.sin)])
    work = np.zeros((3, 2, span), np.float32)
    return np.array(factors, np.int64), twiddles.astype(np.float32), work


@inner
def _turn(z):  # type: ignore[no-untyped-def]
    return complex(z.imag, -z.real)


@inner
def _eighth(z):  # type: ignore[no-untyped-def]
    return complex(_ROOT_HALF * (z.real + z.imag), _ROOT_HALF * (z.imag - z.real))


@inner
def _dft4(a, b, c, d):  # type: ignore[no-untyped-def]
    e, f, g, h = a + c, a - c, b + d, _turn(b - d)
    return e + g, f + h, e - g, f - h


@inner
def _dft8(a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
    p0, p1, p2, p3 = _dft4(a, c, e, g)
    q0, q1, q2, q3 = _dft4(b, d, f, h)
    q1, q2, q3 = _eighth(q1), _turn(q2), _turn(_eighth(q3))
    return p0 + q0, p1 + q1, p2 + q2, p3 + q3, p0 - q0, p1 - q1, p2 - q2, p3 - q3


@inner
def _leg(x, w, j, s, k):  # type: ignore[no-untyped-def]
    """Read leg ``j`` of a butterfly, times its twiddle."""
    a, b, c, d = x[0, j, s, k], x[1, j, s, k], w[0, j, k], w[1, j, k]
    return complex(a * c - b * d, a * d + b * c)


@inner
def _put(y, s, j, k, z):  # type: ignore[no-untyped-def]
    y[0, s, j, k], y[1, s, j, k] = z.real, z.imag


@inner
def _stage8(x, w, y):  # type: ignore[no-untyped-def]
    for s in range(x.shape[2]):
        for k in range(x.shape[3]):
            a, b, c, d, e, f, g, h = _dft8(
                _leg(x, w, 0, s, k),
                _leg(x, w, 1, s, k),
                _leg(x, w, 2, s, k),
                _leg(x, w, 3, s, k),
                _leg(x, w, 4, s, k),
                _leg(x, w, 5, s, k),
                _leg(x, w, 6, s, k),
                _leg(x, w, 7, s, k),
            )
            _put(y, s, 0, k, a)
            _put(y, s, 1, k, b)
            _put(y, s, 2, k, c)
            _put(y, s, 3, k, d)
            _put(y, s, 4, k, e)
            _put(y, s, 5, k, f)
            _put(y, s, 6, k, g)
            _put(y, s, 7, k, h)


@inner
def _stage4(x, w, y):  # type: ignore[no-untyped-def]
    for s in range(x.shape[2]):
        for k in range(x.shape[3]):
            a, b, c, d = _dft4(
                _leg(x, w, 0, s, k),
                _leg(x, w, 1, s, k),
                _leg(x, w, 2, s, k),
                _leg(x, w, 3, s, k),
            )
            _put(y, s, 0, k, a)
            _put(y, s, 1, k, b)
            _put(y, s, 2, k, c)
            _put(y, s, 3, k, d)


@inner
def _stage(x, w, y, roots):  # type: ignore[no-untyped-def]
    """Stage of any radix, by the definition; ``roots`` (2, radix) are the roots of unity."""
    radix = x.shape[1]
    for s in range(x.shape[2]):
        for j in range(radix):
            for k in range(x.shape[3]):
                _put(y, s, j, k, _leg(x, w, 0, s, k))
            for leg in range(1, radix):
                c, d = roots[0, j * leg % radix], roots[1, j * leg % radix]
                for k in range(x.shape[3]):
                    z = _leg(x, w, leg, s, k)
                    y[0, s, j, k] += z.real * c - z.imag * d
                    y[1, s, j, k] += z.real * d + z.imag * c


@inner
def _transform(factors, twiddles, work):  # type: ignore[no-untyped-def]
    """Transform the complex ``work[0]``; return the index in ``work`` of the result."""
    length = work.shape[2]
    span, start, here = 1, 0, 0
    for i in range(factors.size):
        radix = factors[i]
        rest, size = length // (radix * span), 2 * radix * span
        x = work[here].reshape((2, radix, rest, span))
        y = work[1 - here].reshape((2, rest, radix, span))
        w = twiddles[start : start + size].reshape((2, radix, span))
        roots = twiddles[start + size : start + size + 2 * radix].reshape((2, radix))
        if radix == 8:
            _stage8(x, w, y)
        elif radix == 4:
            _stage4(x, w, y)
        else:
            _stage(x, w, y, roots)
        start, span, here = start + size + 2 * radix, span * radix, 1 - here
    return here


@kernel(types.void(array(1), array(1), *PLAN, array(1)), **FAST)
def forward(
    samples: Float32,
    window: Float32,
    factors: Int64,
    twiddles: Float32,
    work: Float32,
    spectrum: Float32,
) -> None:
    """Transform the windowed ``samples`` (length,) to ``spectrum`` (2 * bins,).

    The real parts of all bins come first, then the imaginary parts.
    """
    half = work.shape[2]
    for i in range(half):
        work[0, 0, i] = samples[2 * i] * window[2 * i]
        work[0, 1, i] = samples[2 * i + 1] * window[2 * i + 1]
    z = work[_transform(factors, twiddles, work)]
    roots = twiddles[twiddles.size - 2 * half :].reshape((2, half))
    real, imaginary = spectrum[: half + 1], spectrum[half + 1 :]
    real[0], imaginary[0] = z[0, 0] + z[1, 0], 0.0
    real[half], imaginary[half] = z[0, 0] - z[1, 0], 0.0
    for k in range(1, half):
        a, b = z[0, k] + z[0, half - k], z[0, k] - z[0, half - k]
        c, d = z[1, k] + z[1, half - k], z[1, k] - z[1, half - k]
        real[k] = _HALF * (a + roots[0, k] * c + roots[1, k] * b)
        imaginary[k] = _HALF * (d - roots[0, k] * b + roots[1, k] * c)


@kernel(types.void(array(1), *PLAN), **FAST)
def inverse(spectrum: Float32, factors: Int64, twiddles: Float32, work: Float32) -> None:
    """Transform a ``spectrum`` of `forward` to samples in ``work[2]``.

    The imaginary parts of the first and the last bin are ignored, like in `numpy.fft.irfft`.
    """
    half = work.shape[2]
    roots = twiddles[twiddles.size - 2 * half :].reshape((2, half))
    # The inverse transform is a forward one with real and imaginary parts exchanged.
    real, imaginary = spectrum[: half + 1], spectrum[half + 1 :]
    work[0, 1, 0] = real[0] + real[half]
    work[0, 0, 0] = real[0] - real[half]
    for k in range(1, half):
        a, b = real[k] + real[half - k], real[k] - real[half - k]
        c, d = imaginary[k] + imaginary[half - k], imaginary[k] - imaginary[half - k]
        work[0, 1, k] = a + roots[1, k] * b - roots[0, k] * c
        work[0, 0, k] = d + roots[0, k] * b + roots[1, k] * c
    z = work[_transform(factors, twiddles, work)]
    samples = work[2].reshape(2 * half)
    scale = _HALF / np.float32(half)
    for i in range(half):
        samples[2 * i], samples[2 * i + 1] = scale * z[1, i], scale * z[0, i]
