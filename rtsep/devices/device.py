"""The protocol between a device and the worker."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rtsep.devices.control_block import Stats
from rtsep.dsp.timed_ring import Timeline


class Device(Protocol):
    """Exchanges blocks by two timelines, such as `rtsep.devices.portaudio.device.Hosted`.

    The headroom may be assigned at any time.
    """

    name: str
    sample_rate: int
    block: int
    headroom: int
    input: Timeline
    output: Timeline

    @property
    def active(self) -> bool:
        """Whether blocks are exchanged; False after the device was lost."""

    @property
    def finished(self) -> bool:
        """Whether the source has ended; False without a source."""

    def start(self) -> None:
        """Start to exchange blocks; once per object."""

    def reopen(self) -> bool:
        """Try once to reopen a lost device; return whether it is back.

        Raises
        ------
        RateError
            The device is back at another rate.
        """

    def at_rate(self, rate: int) -> Device:
        """Return a device for the same stream at another rate in Hz, not started."""

    def stop(self) -> None:
        """Stop and close the device; may be repeated."""

    def inherit(self, counters: Stats) -> None:
        """Continue the counters of the device that this one replaces."""

    def replace_late(self, latency: int) -> None:
        """Play the mixture, delayed by ``latency`` samples, in place of missing output."""

    def limit(self, level: float) -> None:
        """Limit the output to magnitude ``level`` (linear, 1 is full scale)."""

    def leave_out(self, n: int, latency: int) -> None:
        """Skip the next ``n`` samples of the output, and those that depend on the gap."""

    def stats(self) -> Stats:
        """Return the counters."""

    def peaks(self) -> tuple[float, float]:
        """Return the largest absolute input and output value since the last call."""

    def latency_terms(self) -> dict[str, int]:
        """Return the latency between input and output by its terms, in samples."""

    def __enter__(self) -> Self:
        """Start."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
