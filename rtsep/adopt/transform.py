"""The real Fourier transform and its inverse as operations of a graph.

A transform of ``a * b`` samples is one of a, a rotation, and one of b (Cooley and Tukey 1965), each
a product with a constant matrix: a tenth of the multiplications of one matrix for all.
"""

from __future__ import annotations

import numpy as np

from rtsep.adopt.body import Body
from rtsep.spec import Float64


def forward(body: Body, samples: str, length: int) -> str:
    """Return the spectrum, (2, bins), of ``length`` samples, an even number."""
    a, b = factors(length)
    first, turn, second = _parts(a, b)
    rows = body("MatMul", body.number(_stacked(first)), body.reshape(samples, (a, b)))
    parts = body.reshape(rows, (2, a, b))
    real, imaginary = _rotated(body, parts, turn)
    wide = body("Concat", real, imaginary, axis=1)
    columns = body("MatMul", wide, body.number(_complex(second)))  # (a, 2 * half)
    half = second.shape[1]
    ordered = body("Transpose", body.reshape(columns, (a, 2, half)), perm=[1, 2, 0])
    return body.pick(body.reshape(ordered, (2, half * a)), np.arange(length // 2 + 1), axis=1)


def inverse(body: Body, spectrum: str, length: int) -> str:
    """Return ``length`` samples, (1, length), of a spectrum (2, bins)."""
    a, b = factors(length)
    first, turn, second = _parts(a, b)
    half, bins = second.shape[1], length // 2 + 1
    twice = np.full((1, bins), 2.0 / length)  # bins that stand for their mirror image, too
    twice[0, [0, -1]] = 1.0 / length
    weighted = body("Mul", spectrum, body.number(twice))
    filled = body("Concat", weighted, body.number(np.zeros((2, half * a - bins))), axis=1)
    ordered = body("Transpose", body.reshape(filled, (2, half, a)), perm=[2, 0, 1])
    wide = body.reshape(ordered, (a, 2 * half))
    back = body("MatMul", wide, body.number(_complex(second.conj().T)))  # (a, 2 * b)
    parts = body("Transpose", body.reshape(back, (a, 2, b)), perm=[1, 0, 2])
    real, imaginary = _rotated(body, parts, turn.conj())
    tall = body("Concat", real, imaginary, axis=0)
    last = np.concatenate([first.real, first.imag], axis=1)  # of the conjugate: real part only
    return body.reshape(body("MatMul", body.number(last), tall), (1, length))


def factors(length: int) -> tuple[int, int]:
    """Return two factors of an even length; the second is even and not the smaller one."""
    a = max(n for n in range(1, int(length**0.5) + 1) if length % (2 * n) == 0)
    return a, length // a


def _parts(a: int, b: int) -> tuple[Float64, Float64, Float64]:
    """Return the matrices (a, a) and (b, b / 2 + 1), and the rotation (a, b) between; complex."""
    one = np.arange(a)
    two = np.arange(b)
    first = np.exp(-2j * np.pi * np.outer(one, one) / a)
    turn = np.exp(-2j * np.pi * np.outer(one, two) / (a * b))
    second = np.exp(-2j * np.pi * np.outer(two, np.arange(b // 2 + 1)) / b)
    return first, turn, second


def _stacked(matrix: Float64) -> Float64:
    """Return real parts above imaginary parts."""
    return np.concatenate([matrix.real, matrix.imag])


def _complex(matrix: Float64) -> Float64:
    """Return the real matrix that multiplies rows of real, then imaginary parts, like this one."""
    real, imaginary = matrix.real, matrix.imag
    return np.block([[real, imaginary], [-imaginary, real]])


def _rotated(body: Body, parts: str, turn: Float64) -> tuple[str, str]:
    """Return real and imaginary parts, (a, b) each, of (2, a, b) times a rotation."""
    real, imaginary = (body.reshape(body.pick(parts, [k], axis=0), turn.shape) for k in (0, 1))
    cosine, sine = body.number(turn.real), body.number(turn.imag)
    return (
        body("Sub", body("Mul", real, cosine), body("Mul", imaginary, sine)),
        body("Add", body("Mul", real, sine), body("Mul", imaginary, cosine)),
    )
