"""An audio track for aiortc that keeps one source of another track, by default speech."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rtsep.errors import ExtraError, SoundError
from rtsep.integrations.source_filter import SourceFilter

try:
    from aiortc import MediaStreamTrack
    from av import AudioFrame
except ModuleNotFoundError as error:
    raise ExtraError(
        f"the track for aiortc needs {error.name}: pip install 'rtsep[webrtc]'"
    ) from None


class SeparatedTrack(MediaStreamTrack):
    """Keeps one source of ``track``; works in a thread.

    Frames keep their size, rate, channels, ``pts`` and ``time_base``; the sound in them is
    `latency_ms` late. Each channel is separated by itself, unless the model processes them jointly.

    Parameters
    ----------
    track
        The track to separate, with frames of packed 16-bit samples, as aiortc's tracks have.
    model
        As in `rtsep.load`.
    source
        Name of the source; by default the first of the model.

    Examples
    --------
    ``peer.addTrack(SeparatedTrack(relay.subscribe(track)))``
    """

    kind = "audio"

    def __init__(
        self,
        track: MediaStreamTrack,
        model: str | Path | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__()
        self.track = track
        self._model, self._source = model, source
        self._filter: SourceFilter | None = None

    @property
    def latency_ms(self) -> float:
        """Delay of the sound, in milliseconds; 0 before the first frame."""
        return 0.0 if self._filter is None else self._filter.latency.ms

    async def recv(self) -> AudioFrame:
        """Return the next frame; the first call loads the model.

        Raises
        ------
        aiortc.mediastreams.MediaStreamError
            The track has ended.
        SoundError
            A frame has no packed 16-bit samples, or another rate or layout than the first.
        RtsepError
            There is no such model or source, or it can't be run in this format.
        """
        frame = await self.track.recv()
        if not isinstance(frame, AudioFrame) or frame.format.name != "s16":
            form = frame.format.name if isinstance(frame, AudioFrame) else type(frame).__name__
            raise SoundError(f"frames must have packed 16-bit samples (s16), not {form}")
        rate, channels = frame.sample_rate, frame.layout.nb_channels
        if self._filter is None:
            self._filter = await asyncio.to_thread(
                SourceFilter, self._model, self._source, sample_rate=rate, channels=channels
            )
        kept = self._filter
        if (rate, channels) != (kept.sample_rate, kept.channels):
            raise SoundError(
                f"the track changed from {kept.sample_rate} Hz, {kept.channels} channels to {rate} "
                f"Hz, {channels} channels: make a new SeparatedTrack"
            )
        size = 2 * channels * frame.samples
        samples = await asyncio.to_thread(kept.process, bytes(frame.planes[0])[:size])
        made = AudioFrame(format="s16", layout=frame.layout.name, samples=frame.samples)
        plane = made.planes[0]
        plane.update(samples.ljust(plane.buffer_size, b"\0"))
        made.sample_rate, made.pts, made.time_base = rate, frame.pts, frame.time_base
        return made

    def stop(self) -> None:
        """End this track and the one it separates."""
        super().stop()
        self.track.stop()
