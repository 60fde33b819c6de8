"""Models that map the spectrum of a frame to that of the estimate, with caches."""

from __future__ import annotations

from collections.abc import Sequence

from rtsep.adopt.body import Body, to_axes
from rtsep.adopt.network import Network
from rtsep.errors import AdoptError


def wire(body: Body, networks: Sequence[Network]) -> str:
    """Connect the network; return the estimate's spectrum, (1, 1, 2, bins).

    Raises
    ------
    AdoptError
        The sizes are not those of the spec, or an axis is missing.
    """
    (network,) = networks
    described = network.description
    bins = body.spec.window_length // 2 + 1
    frame = {"frame": 1, "channel": 1, "part": 2, "bin": bins}
    check_size(network, "bin", bins)
    sound = to_axes(body, body.mixture, frame, described.input_axes)
    made = body.graft(network, sound, "")
    back = {axis: frame.get(axis, 1) for axis in described.output_axes}
    if not {"part", "bin"} <= {*back}:
        raise AdoptError("output_axes must have 'part' and 'bin'")
    return to_axes(body, made, back, tuple(frame))


def check_size(network: Network, axis: str, wanted: int) -> None:
    """Check the size of an axis of input and output.

    Raises
    ------
    AdoptError
        The axis is missing or has another size.
    """
    described = network.description
    for field, name, axes in (
        ("input_axes", described.input, described.input_axes),
        ("output_axes", described.output, described.output_axes),
    ):
        if axis not in axes:
            raise AdoptError(f"{field} must have {axis!r}")
        size = network.shapes[name][axes.index(axis)]
        if size not in (None, wanted):
            raise AdoptError(
                f"window_length needs {wanted} in axis {axis!r} of {name!r}, but it has {size}"
            )
