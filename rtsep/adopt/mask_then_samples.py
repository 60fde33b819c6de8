"""Two networks in a row: one masks the spectrum of a block, the other maps its samples.

The first gets the magnitudes of the block's spectrum and returns a mask; the masked spectrum, with
the phase of the mixture, goes back to samples; the second maps those to samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtsep.adopt.body import Body, to_axes
from rtsep.adopt.network import Network
from rtsep.adopt.spectrum import check_size
from rtsep.spec import Float64


def wire(body: Body, networks: Sequence[Network]) -> str:
    """Connect both networks; return the estimate's samples, (1, 1, window_length).

    Raises
    ------
    AdoptError
        The sizes are not those of the spec, or an axis is missing.
    """
    masker, mapper = networks
    length = body.spec.window_length
    bins = length // 2 + 1
    check_size(masker, "bin", bins)
    check_size(mapper, "sample", length)
    forward, inverse = _transforms(length)
    spectrum = body("MatMul", body.reshape(body.mixture, (1, length)), body.number(forward))
    parts = body.reshape(spectrum, (2, bins))
    real, imaginary = (body.pick(parts, [part], axis=0) for part in (0, 1))
    power = body("Add", body("Mul", real, real), body("Mul", imaginary, imaginary))
    axes = {"frame": 1, "channel": 1, "bin": bins}
    magnitudes = to_axes(body, body("Sqrt", power), axes, masker.description.input_axes)
    mask = body.graft(masker, magnitudes, "mask")
    back = {axis: axes.get(axis, 1) for axis in masker.description.output_axes}
    mask = body.reshape(to_axes(body, mask, back, tuple(axes)), (1, bins))
    masked = body.reshape(body("Mul", parts, mask), (1, 2 * bins))
    samples = body("MatMul", masked, body.number(inverse))
    frame = {"frame": 1, "channel": 1, "sample": length}
    made = body.graft(
        mapper, to_axes(body, samples, frame, mapper.description.input_axes), "samples"
    )
    back = {axis: frame.get(axis, 1) for axis in mapper.description.output_axes}
    return to_axes(body, made, back, tuple(frame))


def _transforms(length: int) -> tuple[Float64, Float64]:
    """Return the real Fourier transform and its inverse as matrices.

    (length, 2 * bins) and (2 * bins, length); the real parts of all bins come first.
    """
    bins = length // 2 + 1
    spectra = np.fft.rfft(np.eye(length), axis=1)
    forward = np.concatenate([spectra.real, spectra.imag], axis=1)
    unit = np.eye(bins)
    rows = np.concatenate([np.fft.irfft(unit, length), np.fft.irfft(1j * unit, length)])
    return forward, rows
