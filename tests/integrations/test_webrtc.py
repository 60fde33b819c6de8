"""The track between aiortc's own classes: behind another track, and over a real connection."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rtsep.errors import SoundError
from tests.support.patience import PATIENCE_S
from tests.support.pcm import FORMATS, expected, frames, samples

aiortc = pytest.importorskip("aiortc", reason="pip install 'rtsep[webrtc]'")
import av  # noqa: E402
from aiortc.mediastreams import MediaStreamError  # noqa: E402

from rtsep.integrations.webrtc import SeparatedTrack  # noqa: E402


class Given(aiortc.MediaStreamTrack):  # type: ignore[misc]
    """A track of given frames."""

    kind = "audio"

    def __init__(self, parts: list[bytes], rate: int, layout: str = "mono", form: str = "s16"):
        super().__init__()
        self.parts, self.rate, self.layout, self.form = [*parts], rate, layout, form
        self.pts = 1000

    async def recv(self) -> av.AudioFrame:
        if not self.parts:
            raise MediaStreamError
        part = self.parts.pop(0)
        size = len(part) // (4 if self.layout == "stereo" else 2)
        frame = av.AudioFrame(format=self.form, layout=self.layout, samples=size)
        frame.planes[0].update(part.ljust(frame.planes[0].buffer_size, b"\0"))
        frame.sample_rate, frame.pts, frame.time_base = self.rate, self.pts, Fraction(1, self.rate)
        self.pts += size
        return frame


def received(track: SeparatedTrack) -> list[av.AudioFrame]:
    async def talk() -> list[av.AudioFrame]:
        found = []
        try:
            while True:
                found.append(await track.recv())
        except MediaStreamError:
            return found

    return asyncio.run(talk())


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize(("rate", "length_ms"), FORMATS)
def test_it_equals_rtsep_separate(rate: int, length_ms: int, layout: str, model: Path) -> None:
    channels = 2 if layout == "stereo" else 1
    track = SeparatedTrack(Given(frames(rate, length_ms, channels), rate, layout), model)
    found = received(track)
    size = rate * length_ms // 1000
    assert [frame.pts for frame in found] == [1000 + size * k for k in range(len(found))]
    assert {(f.sample_rate, f.samples, f.layout.name, f.time_base) for f in found} == {
        (rate, size, layout, Fraction(1, rate))
    }
    joined = samples(b"".join(bytes(f.planes[0])[: 2 * channels * size] for f in found), channels)
    late = round(track.latency_ms * rate / 1000)
    assert rate != 16000 or not joined[:late].any()  # resampling rings before the first sample
    wanted = expected(rate, model, "speech", channels)
    np.testing.assert_array_equal(joined[late:], wanted[: len(wanted) - late])


def test_what_is_refused(model: Path) -> None:
    parts = frames(16000, 20)
    with pytest.raises(SoundError, match=r"packed 16-bit samples \(s16\), not s16p"):
        received(SeparatedTrack(Given(parts, 16000, form="s16p"), model))
    given = Given(parts, 16000)
    track = SeparatedTrack(given, model)

    async def change() -> None:
        await track.recv()
        given.rate = 8000
        await track.recv()

    with pytest.raises(SoundError, match="from 16000 Hz, 1 channels to 8000 Hz"):
        asyncio.run(change())
    track.stop()
    assert (track.readyState, given.readyState) == ("ended", "ended")


def test_over_a_connection(model: Path) -> None:
    """Two peers on this machine: the second one hears the separated track."""

    async def talk() -> av.AudioFrame:
        caller, callee = aiortc.RTCPeerConnection(), aiortc.RTCPeerConnection()
        heard: asyncio.Future[av.AudioFrame] = asyncio.get_running_loop().create_future()

        @callee.on("track")  # type: ignore[misc]
        async def listen(track: aiortc.MediaStreamTrack) -> None:
            frame = await track.recv()
            if not heard.done():
                heard.set_result(frame)

        parts = frames(48000, 20, 2) * 20
        caller.addTrack(SeparatedTrack(Given(parts, 48000, "stereo"), model))
        await caller.setLocalDescription(await caller.createOffer())
        await callee.setRemoteDescription(caller.localDescription)
        await callee.setLocalDescription(await callee.createAnswer())
        await caller.setRemoteDescription(callee.localDescription)
        try:
            return await asyncio.wait_for(heard, PATIENCE_S)
        finally:
            await caller.close()
            await callee.close()

    frame = asyncio.run(talk())
    assert frame.sample_rate == 48000 and frame.samples == 960
