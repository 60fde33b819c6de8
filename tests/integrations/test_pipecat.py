"""The filter in Pipecat's own input transport."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.patience import PATIENCE_S
from tests.support.pcm import FORMATS, expected, frames, mixture, samples

pytest.importorskip("pipecat", reason="pip install --no-deps pipecat-ai")
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import FilterEnableFrame

from rtsep.errors import BundleError
from rtsep.integrations.pipecat import RtsepFilter


def run(made: RtsepFilter, rate: int, parts: list[bytes | bool]) -> list[bytes]:
    """Start a filter and give it frames and enable frames, as a transport does."""

    async def talk() -> list[bytes]:
        await made.start(rate)
        found = []
        for part in parts:
            if isinstance(part, bool):
                await made.process_frame(FilterEnableFrame(enable=part))
            else:
                found.append(await made.filter(part))
        return found

    return asyncio.run(talk())


@pytest.mark.parametrize(("rate", "length_ms"), FORMATS)
def test_it_equals_rtsep_separate(rate: int, length_ms: int, model: Path) -> None:
    made = RtsepFilter(model)
    assert isinstance(made, BaseAudioFilter) and made.latency_ms == 0
    parts: list[Any] = frames(rate, length_ms)
    found = run(made, rate, parts)
    late = round(made.latency_ms * rate / 1000)
    given = np.cumsum([len(part) // 2 for part in parts])
    returned = np.cumsum([len(part) // 2 for part in found])
    np.testing.assert_array_equal(returned, np.maximum(given - late, 0))
    assert found[0] == b"" or given[0] > late
    wanted = expected(rate, model, "speech")
    np.testing.assert_array_equal(samples(b"".join(found)), wanted[: len(wanted) - late])


def test_it_is_disabled_and_enabled_without_a_gap(model: Path) -> None:
    parts = frames(16000, 20)
    made = RtsepFilter(model, "noise")
    found = run(made, 16000, [*parts[:5], False, *parts[5:9], True, True, *parts[9:], False, b""])
    joined, plain = samples(b"".join(found)), mixture(16000)
    wanted, off, on = expected(16000, model, "noise"), 5 * 320, 9 * 320
    assert len(joined) == len(plain)
    np.testing.assert_array_equal(joined[off:on], plain[off:on])
    before, after = slice(0, off - 400), slice(on + 400, -400)  # without the ends of the streams
    np.testing.assert_array_equal(joined[before], wanted[before])
    np.testing.assert_allclose(joined[after], wanted[after], atol=1)


def test_disabled_from_the_start_and_errors(model: Path) -> None:
    parts: list[Any] = frames(16000, 20)
    assert run(RtsepFilter(model, enabled=False), 16000, parts) == parts
    with pytest.raises(BundleError, match="neither a file nor a shipped model"):
        run(RtsepFilter("speach"), 16000, [])


def test_pipecats_transport_drives_it(model: Path) -> None:
    """An input transport in a pipeline: it starts the filter, gives it audio and stops it."""
    utils = pytest.importorskip("pipecat.tests.utils")
    from pipecat.frames.frames import InputAudioRawFrame, StartFrame
    from pipecat.pipeline.worker import PipelineParams
    from pipecat.transports.base_input import BaseInputTransport
    from pipecat.transports.base_transport import TransportParams

    made = RtsepFilter(model)
    parts = frames(16000, 20)

    class Microphone(BaseInputTransport):  # type: ignore[misc]
        async def start(self, frame: StartFrame) -> None:
            await super().start(frame)
            await self.set_transport_ready(frame)
            for part in parts:
                await self.push_audio_frame(InputAudioRawFrame(part, 16000, 1))

    async def talk() -> list[bytes]:
        transport = Microphone(TransportParams(audio_in_enabled=True, audio_in_filter=made))
        heard, _ = await utils.run_test(
            transport,
            frames_to_send=[utils.SleepFrame(3.0)],
            pipeline_params=PipelineParams(audio_in_sample_rate=16000),
            start_timeout=PATIENCE_S,
        )
        return [frame.audio for frame in heard if isinstance(frame, InputAudioRawFrame)]

    found = samples(b"".join(asyncio.run(talk())))
    assert len(found) > 8000 - 400 and made.latency_ms == 0  # stopped
    np.testing.assert_array_equal(found, expected(16000, model, "speech")[: len(found)])
