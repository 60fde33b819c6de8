"""Two networks in a row: one masks the spectrum of a block, the other maps its samples.

The first gets the magnitudes of the block's spectrum and returns a mask; the masked spectrum, with
the phase of the mixture, goes back to samples; the second maps those to samples.
"""

from __future__ import annotations

from collections.abc import Sequence

from rtsep.adopt import transform
from rtsep.adopt.body import Body, to_axes
from rtsep.adopt.network import Network
from rtsep.adopt.spectrum import check_size


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
    parts = transform.forward(body, body.mixture, length)
    real, imaginary = (body.pick(parts, [part], axis=0) for part in (0, 1))
    power = body("Add", body("Mul", real, real), body("Mul", imaginary, imaginary))
    axes = {"frame": 1, "channel": 1, "bin": bins}
    magnitudes = to_axes(body, body("Sqrt", power), axes, masker.description.input_axes)
    mask = body.graft(masker, magnitudes, "mask")
    back = {axis: axes.get(axis, 1) for axis in masker.description.output_axes}
    mask = body.reshape(to_axes(body, mask, back, tuple(axes)), (1, bins))
    samples = transform.inverse(body, body("Mul", parts, mask), length)
    frame = {"frame": 1, "channel": 1, "sample": length}
    made = body.graft(
        mapper, to_axes(body, samples, frame, mapper.description.input_axes), "samples"
    )
    back = {axis: frame.get(axis, 1) for axis in mapper.description.output_axes}
    return to_axes(body, made, back, tuple(frame))
