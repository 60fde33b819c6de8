"""The state of a stream as bytes, so that it can go on in another process or machine.

It has only what differs from a new stream of the same model and format: no weights, windows or
filters. Machines of the same byte order can exchange it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsep.dsp.full_band import DELAY, LATENCY
from rtsep.dsp.mixer import Mixer
from rtsep.dsp.polyphase import FILLED, Line
from rtsep.runtime.engine import Engine
from rtsep.serve.batch import Lane

Part = NDArray[Any]
_LENGTH = struct.Struct("<I")


def pack(head: dict[str, Any], engine: Engine, lane: Lane, mixer: Mixer) -> bytes:
    """Return the state of a stream between two blocks.

    Parameters
    ----------
    head
        What must be equal when the stream goes on, and where it is; written as JSON.
    engine, lane, mixer
        The stream.
    """
    text = json.dumps(head).encode()
    parts = [part.tobytes() for part in _parts(engine, mixer)]
    return b"".join((_LENGTH.pack(len(text)), text, lane.past.tobytes(), *parts))


def head_of(snapshot: bytes) -> dict[str, Any]:
    """Return the head of a snapshot."""
    (length,) = _LENGTH.unpack_from(snapshot)
    head: dict[str, Any] = json.loads(snapshot[_LENGTH.size : _LENGTH.size + length])
    return head


def unpack(snapshot: bytes, engine: Engine, lane: Lane, mixer: Mixer) -> None:
    """Write a state to a stream of the same model and format."""
    (length,) = _LENGTH.unpack_from(snapshot)
    values, place = lane.past.size, _LENGTH.size + length
    lane.past = np.frombuffer(snapshot, np.float32, values, place)
    place += 4 * values
    for part in _parts(engine, mixer):
        part[...] = np.frombuffer(snapshot, part.dtype, part.size, place).reshape(part.shape)
        place += part.nbytes


def _parts(engine: Engine, mixer: Mixer) -> Iterator[Part]:
    """Yield the arrays of a stream; the length of some depends on earlier ones."""
    buffers, program, rates = engine.state.buffers, engine.state.program, engine.state.rates
    yield from (buffers.history, buffers.overlap, buffers.ready, buffers.broken, buffers.cursors)
    yield from (program.known, program.cursors)
    if len(rates.mixture):
        yield rates.cursors
        yield from _line(rates.inward)
        yield from _line(rates.outward)
    rest = rates.rest
    if len(rest.mixture):
        yield from _line(rest.line)
        yield rest.cursors
        yield from (rest.mixture[: rest.cursors[LATENCY]], rest.heard[: rest.cursors[DELAY]])
        yield from (rest.tops, rest.levels)
    controls = mixer.controls
    yield from (controls.gains, controls.muted, controls.soloed, controls.bypass)
    yield from (controls.line, controls.cursors, controls.shares)


def _line(line: Line) -> Iterator[Part]:
    yield line.cursors
    yield line.history[: line.cursors[FILLED]]
