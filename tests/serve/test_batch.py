"""Streams that share calls of a model, in any order, are as if alone; their state is a value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import rtsep
from rtsep import weights
from rtsep.errors import SpecError
from rtsep.runtime.engine import DEFAULT
from rtsep.serve.batch import Batch
from rtsep.serve.protocol import Greeting
from rtsep.serve.stream import Sound, Stream
from rtsep.ui.protocol import Hello, encode
from tests.support.serving import noise

pytest.importorskip("websockets")

FORMATS = {
    "speech": Hello(16000, 1, 320, "f32"),
    "speech at 48 kHz": Hello(48000, 2, 480, "f32"),
    "chandna-speech at 44.1 kHz": Hello(44100, 1, 882, "f32"),
    "music": Hello(44100, 2, 441, "f32"),
}
"""A model each, with a format."""
PLACES = 3


@pytest.fixture(scope="module")
def batches() -> dict[str, Batch]:
    return {name: Batch(weights.find(name.split()[0]), PLACES) for name in FORMATS}


def streams(batch: Batch, hello: Hello, count: int) -> list[Stream]:
    return [Stream(str(i), Greeting(hello, stems=True), batch, DEFAULT) for i in range(count)]


def round_of(batch: Batch, work: dict[Stream, tuple[int, Any]], hello: Hello) -> dict[Stream, Any]:
    """Separate a frame of each of these streams; the stems (frame, sources, channels)."""
    for stream, (number, frame) in work.items():
        stream.begin(Sound(number, encode(number, frame, hello), 0.0))
    left = [*work]
    while left:
        left = [stream for stream in left if not stream.advance()]
        if batch.waiting:
            batch.run()
    return {stream: stems(stream.finish(), hello) for stream in work}


def stems(reply: bytes, hello: Hello) -> Any:
    return np.frombuffer(reply, "<f4", offset=8).reshape(hello.frame, -1, hello.channels)


def separated(model: str, mixture: Any, rate: int) -> Any:
    """(n, sources, channels), offline."""
    return np.stack([*rtsep.separate(mixture, rate, model.split()[0]).values()], axis=1)


@pytest.mark.parametrize("name", FORMATS)
def test_streams_that_are_not_in_step_equal_separate(batches: dict[str, Batch], name: str) -> None:
    batch, hello = batches[name], FORMATS[name]
    own = streams(batch, hello, PLACES)
    mixtures = [noise(0.5, hello.sample_rate, hello.channels, seed) for seed in range(PLACES)]
    frames = [mixture.reshape(-1, hello.frame, hello.channels) for mixture in mixtures]
    parts: list[list[Any]] = [[] for _ in own]
    random = np.random.default_rng(0)
    while any(len(part) < len(frames[0]) for part in parts):
        chosen = [
            i for i in range(PLACES) if random.random() < 0.6 and len(parts[i]) < len(frames[i])
        ]
        work = {own[i]: (len(parts[i]), frames[i][len(parts[i])]) for i in chosen}
        for stream, out in round_of(batch, work, hello).items():
            parts[own.index(stream)].append(out)
    late = own[0].engine.latency_samples
    for mixture, part in zip(mixtures, parts, strict=True):
        expected = separated(name, mixture, hello.sample_rate)[: len(mixture) - late]
        out = np.concatenate(part)
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(out[late:], expected, atol=1e-5)
    for stream in own:
        stream.close()


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_goes_on_from_its_state_elsewhere(batches: dict[str, Batch], name: str) -> None:
    batch, hello = batches[name], FORMATS[name]
    first, beside = streams(batch, hello, 2)
    frames = noise(1.0, hello.sample_rate, hello.channels).reshape(-1, hello.frame, hello.channels)
    cut = 17
    for number in range(cut):
        # The other one makes states lie elsewhere in the rings.
        work = {first: (number, frames[number])}
        if number % 3:
            work[beside] = (number, frames[-number])
        round_of(batch, work, hello)
    state = first.save()
    beside.close()
    (other,) = streams(batch, hello, 1)
    round_of(batch, {other: (0, frames[-1])}, hello)
    other.restore(state)
    assert other.number == cut - 1
    for number in range(cut, len(frames)):
        work = {first: (number, frames[number]), other: (number, frames[number])}
        made = round_of(batch, work, hello)
        np.testing.assert_allclose(made[other], made[first], atol=1e-6)
    first.close()
    other.close()


def test_a_state_of_another_format_is_refused(batches: dict[str, Batch]) -> None:
    (one,) = streams(batches["speech"], FORMATS["speech"], 1)
    (other,) = streams(batches["music"], FORMATS["music"], 1)
    with pytest.raises(rtsep.ProtocolError, match="another model or format"):
        other.restore(one.save())
    one.close()
    other.close()


def test_places_are_limited_and_come_back_empty(batches: dict[str, Batch]) -> None:
    batch, hello = batches["speech"], FORMATS["speech"]
    own = streams(batch, hello, PLACES)
    with pytest.raises(SpecError, match="no place"):
        streams(batch, hello, 1)
    frame = noise(0.02).reshape(-1, 1)
    before = [round_of(batch, {own[0]: (n, frame)}, hello)[own[0]] for n in range(9)]
    own[0].close()
    (again,) = streams(batch, hello, 1)
    after = [round_of(batch, {again: (n, frame)}, hello)[again] for n in range(9)]
    np.testing.assert_array_equal(before, after)
    for stream in (again, *own[1:]):
        stream.close()


def test_nan_of_one_stream_is_not_noticed_by_another(batches: dict[str, Batch]) -> None:
    batch, hello = batches["speech"], FORMATS["speech"]
    sick, well = streams(batch, hello, 2)
    frames = noise(0.2).reshape(-1, hello.frame, 1)
    out = []
    for number, frame in enumerate(frames):
        bad = np.full_like(frame, np.nan if number % 2 else np.inf)
        made = round_of(batch, {sick: (number, bad), well: (number, frame)}, hello)
        assert np.isfinite(made[sick]).all()
        out.append(made[well])
    late = well.engine.latency_samples
    expected = separated("speech", frames.reshape(-1, 1), 16000)[: frames.size - late]
    np.testing.assert_allclose(np.concatenate(out)[late:], expected, atol=1e-5)
    sick.close()
    well.close()
