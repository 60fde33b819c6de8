"""An input filter for Pipecat that keeps one source, by default speech."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rtsep.errors import ExtraError
from rtsep.integrations.source_filter import SourceFilter

try:
    from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
    from pipecat.frames.frames import FilterControlFrame, FilterEnableFrame
except ModuleNotFoundError as error:
    raise ExtraError(
        f"the filter for Pipecat needs {error.name}: pip install 'rtsep[pipecat]'"
    ) from None


class RtsepFilter(BaseAudioFilter):
    """Keeps one source of the transport's input; works in a thread.

    The output is aligned with the input: its first sample belongs to the first sample of the
    input, so it comes `latency_ms` later, and the first calls return ``b""``. While the filter is
    disabled by a ``FilterEnableFrame``, the input passes unchanged; nothing is lost or doubled at
    the change.

    Parameters
    ----------
    model
        As in `rtsep.load`.
    source
        Name of the source; by default the first of the model.
    enabled
        Whether the filter is enabled at the start.

    Examples
    --------
    ``TransportParams(audio_in_enabled=True, audio_in_filter=RtsepFilter())``
    """

    def __init__(
        self,
        model: str | Path | None = None,
        source: str | None = None,
        *,
        enabled: bool = True,
    ) -> None:
        self._model, self._source, self._enabled = model, source, enabled
        self._filter: SourceFilter | None = None
        self._skipped = 0  # bytes of silence still to be left out
        self._rest = b""

    @property
    def latency_ms(self) -> float:
        """Delay of the output, in milliseconds; 0 before `start`."""
        return 0.0 if self._filter is None else self._filter.latency.ms

    async def start(self, sample_rate: int) -> None:
        """Load the model for the transport's sample rate, in Hz.

        Raises
        ------
        RtsepError
            There is no such model or source, or it can't be run at this rate.
        """
        self._filter = await asyncio.to_thread(
            SourceFilter, self._model, self._source, sample_rate=sample_rate
        )
        self._begin()

    async def stop(self) -> None:
        """Release the model."""
        self._filter = None

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """Enable or disable the filter."""
        if not isinstance(frame, FilterEnableFrame) or frame.enable == self._enabled:
            return
        self._enabled = frame.enable
        if self._filter is not None and not frame.enable:
            self._rest += self._filter.flush()[self._skipped :]
            self._begin()

    async def filter(self, audio: bytes) -> bytes:
        """Return the next 16-bit samples of one channel; ``b""`` while the filter fills."""
        found = audio
        if self._filter is not None and self._enabled:
            found = await asyncio.to_thread(self._filter.process, audio)
            skipped = min(self._skipped, len(found))
            self._skipped -= skipped
            found = found[skipped:]
        rest, self._rest = self._rest, b""
        return rest + found

    def _begin(self) -> None:
        assert self._filter is not None
        self._skipped = 2 * self._filter.latency.samples
