"""What a worker needs of a device, whatever stands behind it."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rtsep.devices.control_block import Stats
from rtsep.dsp.timed_ring import Timeline


class Device(Protocol):
    """Blocks in and out by two timelines; `rtsep.devices.portaudio.device.Hosted` is one."""

    name: str
    sample_rate: int
    block: int
    headroom: int
    input: Timeline
    output: Timeline

    @property
    def active(self) -> bool:
        """Whether blocks are being exchanged; false once a device has gone away."""

    @property
    def finished(self) -> bool:
        """Whether the whole source has been handed over; never without a source."""

    def start(self) -> None:
        """Begin to exchange blocks; once in the life of a device."""

    def reopen(self) -> bool:
        """Try once to go on with a device that was lost; tell whether it is back.

        Raises
        ------
        RateError
            It is back, and no longer works at this rate.
        """

    def at_rate(self, rate: int) -> Device:
        """Make a device for the same stream at another rate, in Hz; to be started."""

    def stop(self) -> None:
        """End it, and close what was opened; may be repeated."""

    def inherit(self, counters: Stats) -> None:
        """Go on counting from there."""

    def replace_late(self, latency: int) -> None:
        """Play the mixture, as late, where answers of this latency are missing."""

    def limit(self, level: float) -> None:
        """Play no magnitude above ``level`` (linear, 1 is full scale)."""

    def leave_out(self, n: int, latency: int) -> None:
        """Give up the next ``n`` answers, whose latency is given."""

    def stats(self) -> Stats:
        """Read the counters."""

    def peaks(self) -> tuple[float, float]:
        """Largest absolute input and output value since the last call."""

    def latency_terms(self) -> dict[str, int]:
        """Latency between input and output, in samples, by its terms."""

    def __enter__(self) -> Self:
        """Start."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
