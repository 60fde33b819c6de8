"""A frame processor for LiveKit that keeps one source, by default speech."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from pathlib import Path

from rtsep.errors import ExtraError, RtsepError
from rtsep.integrations.source_filter import SourceFilter

try:
    from livekit import rtc
except ModuleNotFoundError as error:
    raise ExtraError(
        f"the processor for LiveKit needs {error.name}: pip install 'rtsep[livekit]'"
    ) from None

_LOG = logging.getLogger(__name__)
LONGEST_S = 0.25
"""Most sound that waits to be returned, in seconds; older sound is dropped."""


class RtsepProcessor(rtc.FrameProcessor[rtc.AudioFrame]):
    """Keeps one source of an audio stream; the event loop only exchanges frames with a thread.

    A call takes a frame and returns earlier sound of the same length: one frame later than it came,
    plus the engine's latency. If that sound is not there yet, because the loop or the thread was
    held up, the call returns silence, and all sound after it comes one frame later.

    Parameters
    ----------
    model
        As in `rtsep.load`.
    source
        Name of the source; by default the first of the model.
    sample_rate, channels
        Expected format of the frames; for another one the model is loaded again.

    Attributes
    ----------
    late
        Frames of silence returned because sound was late.

    Raises
    ------
    RtsepError
        There is no such model or source, or it can't be run in this format.

    Examples
    --------
    ``rtc.AudioStream(track, noise_cancellation=RtsepProcessor())``, or in LiveKit Agents
    ``room_io.AudioInputOptions(noise_cancellation=RtsepProcessor())``.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        source: str | None = None,
        *,
        sample_rate: int = 24000,
        channels: int = 1,
    ) -> None:
        self._model, self._source, self._enabled = model, source, True
        self._filter = SourceFilter(model, source, sample_rate=sample_rate, channels=channels)
        self._frames: queue.SimpleQueue[tuple[int, rtc.AudioFrame | None]] = queue.SimpleQueue()
        self._done: deque[tuple[int, bytes]] = deque()  # with the number of the stream
        self._given = self._finished = self._stream = self.late = 0
        self._begin(sample_rate, channels)
        self._known = sample_rate, channels
        self._thread = threading.Thread(target=self._work, name="rtsep livekit", daemon=True)
        self._thread.start()

    @property
    def latency_ms(self) -> float:
        """Delay of the engine, in milliseconds; one frame is added to it, and each late one."""
        return self._filter.latency.ms

    @property
    def waiting(self) -> int:
        """Number of frames that the thread has not finished."""
        return self._given - self._finished

    @property
    def enabled(self) -> bool:
        """Whether LiveKit calls the processor; when it is enabled again, a new stream starts."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if value and not self._enabled:
            self._begin(*self._format)
        self._enabled = value

    def _begin(self, rate: int, channels: int) -> None:
        """Start a new stream; results of the old one are discarded."""
        self._format, self._ready, self._first = (rate, channels), bytearray(), True
        self._stream += 1

    def _process(self, frame: rtc.AudioFrame) -> rtc.AudioFrame:
        rate, channels, count = frame.sample_rate, frame.num_channels, frame.samples_per_channel
        if (rate, channels) != self._format:
            self._begin(rate, channels)
        size = 2 * channels * count
        if self._first:
            self._ready += bytes(size)
            self._first = False
        self._given += 1
        self._frames.put((self._stream, frame))
        while self._done:
            stream, sound = self._done.popleft()
            if stream == self._stream:
                self._ready += sound
        excess = len(self._ready) - max(2 * channels * round(LONGEST_S * rate), size)
        if excess > 0:
            del self._ready[:excess]
        if len(self._ready) >= size:
            found = bytes(self._ready[:size])
            del self._ready[:size]
        else:
            self.late, found = self.late + 1, bytes(size)
        return rtc.AudioFrame(found, rate, channels, count, userdata=frame.userdata)

    def _close(self) -> None:
        self._frames.put((0, None))
        self._thread.join()

    def _work(self) -> None:
        """Separate frames in order until `_close`."""
        current = 0
        while True:
            stream, frame = self._frames.get()
            if frame is None:
                return
            sound = bytes(2 * frame.num_channels * frame.samples_per_channel)
            try:
                if stream != current:
                    current = stream
                    self._start(frame.sample_rate, frame.num_channels)
                if (frame.sample_rate, frame.num_channels) == self._known:
                    sound = self._filter.process(bytes(frame.data))
            except RtsepError:
                _LOG.exception("frames of %d Hz become silence", frame.sample_rate)
            self._done.append((stream, sound))
            self._finished += 1

    def _start(self, rate: int, channels: int) -> None:
        """Reset the filter, or load it for another format."""
        if (rate, channels) == self._known:
            self._filter.reset()
            return
        self._filter = SourceFilter(self._model, self._source, sample_rate=rate, channels=channels)
        self._known = rate, channels
