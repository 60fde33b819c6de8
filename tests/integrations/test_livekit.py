"""The processor with LiveKit's own frames, called on an event loop as its audio stream does."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rtsep.errors import SoundError
from tests.support.patience import PATIENCE_S
from tests.support.pcm import FORMATS, Int16, expected, frames, mixture, samples

rtc = pytest.importorskip("livekit.rtc", reason="pip install 'rtsep[livekit]'")
from rtsep.integrations.livekit import RtsepProcessor  # noqa: E402


def feed(made: RtsepProcessor, parts: list[bytes], rate: int, channels: int = 1) -> Int16:
    """Call the processor with frames; each result is complete before the next frame."""

    async def talk() -> list[bytes]:
        found = []
        for part in parts:
            size = len(part) // 2 // channels
            frame = made._process(rtc.AudioFrame(part, rate, channels, size))
            assert (frame.sample_rate, frame.num_channels) == (rate, channels)
            assert frame.samples_per_channel == size
            found.append(bytes(frame.data))
            while made.waiting:
                await asyncio.sleep(0.0005)
        return found

    return samples(b"".join(asyncio.run(talk())), channels)


@pytest.mark.parametrize(("rate", "length_ms"), FORMATS)
def test_it_equals_rtsep_separate(rate: int, length_ms: int, model: Path) -> None:
    made = RtsepProcessor(model, sample_rate=rate)
    assert isinstance(made, rtc.FrameProcessor) and made.enabled
    found = feed(made, frames(rate, length_ms), rate)
    late = round((made.latency_ms + length_ms) * rate / 1000)
    assert made.late == 0
    wanted = expected(rate, model, "speech")
    np.testing.assert_array_equal(found[late:], wanted[: len(wanted) - late])
    made._close()


def test_another_format_is_loaded_and_channels_are_separate(model: Path) -> None:
    made = RtsepProcessor(model, "noise")
    feed(made, frames(24000, 50)[:3], 24000)
    found = feed(made, frames(48000, 20, 2), 48000, 2)
    late = round((made.latency_ms + 20) * 48)
    np.testing.assert_array_equal(found[late:], expected(48000, model, "noise", 2)[:-late])
    made._close()


def test_enabled_again_it_starts_a_new_stream(model: Path) -> None:
    made = RtsepProcessor(model, sample_rate=16000)
    parts = frames(16000, 20)
    feed(made, [mixture(16000)[::-1].tobytes()[:6400]] * 3, 16000)
    made.enabled = False
    made.enabled = True
    again = feed(made, parts, 16000)
    late = round((made.latency_ms + 20) * 16)
    np.testing.assert_array_equal(again[late:], expected(16000, model, "speech")[:-late])
    made._close()


def test_late_sound_is_not_lost_and_the_delay_is_bounded(model: Path) -> None:
    """The thread is held up for three frames, then for half a second."""
    made = RtsepProcessor(model, sample_rate=16000)
    parts, process, held = frames(16000, 10), made._filter.process, threading.Event()

    def slow(piece: bytes) -> bytes:
        held.wait(PATIENCE_S)
        return process(piece)

    made._filter.process = slow  # type: ignore[method-assign, assignment]
    wanted, late = expected(16000, model, "speech"), round((made.latency_ms + 10) * 16)
    first = [bytes(made._process(rtc.AudioFrame(p, 16000, 1, 160)).data) for p in parts[:4]]
    held.set()
    assert made.late == 3 and not any(samples(part).any() for part in first)
    while made.waiting:
        time.sleep(0.001)
    found = feed(made, parts[4:8], 16000)
    np.testing.assert_array_equal(found, np.pad(wanted, ((late + 480, 0), (0, 0)))[640:1280])
    assert made.late == 3

    held.clear()
    for part in parts[8:50]:
        made._process(rtc.AudioFrame(part, 16000, 1, 160))
    held.set()
    while made.waiting:
        time.sleep(0.001)
    found = feed(made, parts[50:], 16000)
    late = round((made.latency_ms + 250) * 16)
    np.testing.assert_array_equal(found, wanted[50 * 160 - late :][: len(found)])
    made._close()


def test_the_loop_is_not_held_by_the_model(model: Path) -> None:
    """LiveKit's default: 24 kHz and frames of 50 ms."""
    made = RtsepProcessor(model)
    made._process(rtc.AudioFrame(frames(24000, 50)[0], 24000, 1, 1200))
    process, threads = made._filter.process, set()

    def watched(piece: bytes) -> bytes:
        threads.add(threading.current_thread())
        return process(piece)

    made._filter.process = watched  # type: ignore[method-assign, assignment]
    for part in frames(24000, 50)[1:5]:
        made._process(rtc.AudioFrame(part, 24000, 1, 1200))
    while made.waiting:
        time.sleep(0.001)
    made._close()
    assert threads and threading.current_thread() not in threads


def test_errors_come_at_construction_and_later_formats_that_fail_are_silence(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SoundError, match="no source 'voice'"):
        RtsepProcessor(model, "voice")
    made = RtsepProcessor(model)
    with caplog.at_level(logging.CRITICAL):
        found = feed(made, [b"ab" * 100] * 3, 500)
    assert not found.any()
    late = round((made.latency_ms + 50) * 24)
    found = feed(made, frames(24000, 50), 24000)
    np.testing.assert_array_equal(found[late:], expected(24000, model, "speech")[:-late])
    made._close()


def test_livekits_audio_stream_drives_it(model: Path) -> None:
    """A local track plays a file; LiveKit resamples it, so the level is compared."""
    made = RtsepProcessor(model, sample_rate=24000)

    async def talk() -> list[Int16]:
        microphone = rtc.AudioSource(16000, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", microphone)
        stream = rtc.AudioStream.from_track(
            track=track, sample_rate=24000, frame_size_ms=50, noise_cancellation=made
        )

        async def play() -> None:
            for part in frames(16000, 10) * 2:
                await microphone.capture_frame(rtc.AudioFrame(part, 16000, 1, 160))

        playing, heard = asyncio.create_task(play()), []
        async for event in stream:
            heard.append(np.frombuffer(event.frame.data, np.int16))
            if len(heard) == 12:
                break
        await playing
        await stream.aclose()
        return heard

    heard = asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))
    assert {len(part) for part in heard} == {1200}
    loudest = max(np.abs(part.astype(float)).max() for part in heard)
    assert 0.6 < loudest / np.abs(mixture(16000)).max() < 0.9  # the gain of the model is 0.75
    made._close()
