"""Models that map samples to samples, with caches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtsep.adopt.body import Body, to_axes
from rtsep.adopt.network import Network
from rtsep.adopt.spectrum import check_size

LATE = "late"
"""Name of the state of the samples that wait for the next whole block."""


def wire(body: Body, networks: Sequence[Network], delay: int) -> str:
    """Connect the network; return the estimate's samples, (1, 1, window_length).

    Parameters
    ----------
    body
        The graph.
    networks
        The network.
    delay
        Its delay in samples; the estimate is delayed further, to whole blocks.

    Raises
    ------
    AdoptError
        The sizes are not those of the spec, or an axis is missing.
    """
    (network,) = networks
    described = network.description
    length = body.spec.window_length
    check_size(network, "sample", length)
    frame = {"frame": 1, "channel": 1, "sample": length}
    sound = to_axes(body, body.mixture, frame, described.input_axes)
    made = body.graft(network, sound, "")
    back = {axis: frame.get(axis, 1) for axis in described.output_axes}
    estimate = to_axes(body, made, back, tuple(frame))
    extra = -delay % length
    if not extra:
        return estimate
    # The last samples of the block before come first.
    before = body.state(LATE, (1, 1, extra))
    body.keep(LATE, body.pick(estimate, np.arange(length - extra, length), axis=2))
    now = body.pick(estimate, np.arange(length - extra), axis=2)
    return body("Concat", before, now, axis=2)
