"""A device on a simulated clock, with scripted faults: hours run in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from rtsep.devices.callback_stream import CallbackStream
from rtsep.errors import RateError
from rtsep.spec import Float32

Sound = Callable[[int, Float32], None]
"""Function of a start time in samples and a block (n, channels) to fill or to read."""


@dataclass(frozen=True)
class Hold:
    """The worker is suspended from ``at`` for ``lasting``, in seconds of the device."""

    at: float
    lasting: float


@dataclass(frozen=True)
class Away:
    """The device is lost at ``at`` and returns after ``lasting``, in seconds."""

    at: float
    lasting: float


@dataclass(frozen=True)
class Bad:
    """From ``at`` (seconds) on, ``samples`` samples of all input channels are ``value``."""

    at: float
    samples: int
    value: float


@dataclass(frozen=True)
class Blocks:
    """From ``at`` (seconds) on, the device delivers blocks of ``size`` samples."""

    at: float
    size: int


@dataclass(frozen=True)
class Rate:
    """The device is lost at ``at`` (seconds) and returns with another rate, in Hz."""

    at: float
    rate: int


Event = Hold | Away | Bad | Blocks | Rate


def _silence(start: int, block: Float32) -> None:
    block[:] = 0.0


def _nobody(start: int, block: Float32) -> None:
    pass


class FakeDevice(CallbackStream):
    """Drives the callback and a worker by a simulated clock, deterministic and without threads.

    Callback, timelines and worker are those of a real device; only the time is simulated. Each
    callback is late by a random share of the jitter. Between two callbacks the worker processes all
    available blocks, unless it is suspended.

    Parameters
    ----------
    sample_rate, in_channels, out_channels, block, headroom
        As in `CallbackStream`.
    sound
        Function that fills the microphone's blocks; silence if not given.
    hear
        Function that receives every played block with its time.
    script
        Events, in order.
    jitter_s
        Largest delay of a callback, in seconds.
    seed
        Seed of the jitter.
    own_clock_hz, drift
        Nominal rate of a microphone with its own clock, and its relative deviation: 3e-4 is 300 ppm
        too fast.

    Attributes
    ----------
    now
        Time on the device's clock, in seconds.
    absences
        Number of times the device was lost.
    """

    def __init__(
        self,
        sample_rate: int,
        in_channels: int,
        out_channels: int,
        block: int,
        headroom: int,
        sound: Sound = _silence,
        hear: Sound = _nobody,
        *,
        script: Iterable[Event] = (),
        jitter_s: float = 0.0,
        seed: int = 0,
        own_clock_hz: int = 0,
        drift: float = 0.0,
    ) -> None:
        super().__init__(
            sample_rate,
            in_channels,
            out_channels,
            block,
            headroom,
            microphone=True,
            own_clock_hz=own_clock_hz,
        )
        self.name = "a fake device"
        self.now, self.absences = 0.0, 0
        self.active = False
        self._sound, self._hear = sound, hear
        self._script = sorted(script, key=lambda event: event.at)
        self._jitter, self._drift = jitter_s, drift
        self._next_rate = sample_rate
        self._random = np.random.default_rng(seed)
        self._size = block
        self._begun, self._ticked = 0.0, 0
        self._held = 0.0
        self._own_rate = own_clock_hz * (1 + drift)
        self._spoken = self._spoken_at = 0.0
        self._bad, self._value = 0, 0.0
        most = max([block, *(event.size for event in self._script if isinstance(event, Blocks))])
        self._heard = np.zeros((most, in_channels), np.float32)
        self._played = np.zeros((most, out_channels), np.float32)

    def start(self) -> None:
        """Mark the device as running."""
        self.active = True

    def stop(self) -> None:
        """Mark the device as stopped; may be repeated."""
        self.active = False

    def reopen(self) -> bool:
        """See `rtsep.devices.device.Device`."""
        if self._next_rate != self.sample_rate:
            raise RateError(self._next_rate)
        self.active = True
        self.resume()
        return True

    def at_rate(self, rate: int) -> Self:
        """Return the device at its new rate; time and script continue."""
        device = type(self)(
            rate,
            self.input.width,
            self.output.width,
            self.block,
            self.headroom,
            self._sound,
            self._hear,
            script=self._script,
            jitter_s=self._jitter,
            seed=int(self._random.integers(1 << 31)),
            own_clock_hz=self.own_clock_hz,
            drift=self._drift,
        )
        device.now, device._begun, device._held = self.now, self._exact(0), self._held
        device._bad, device._value = self._bad, self._value
        device.absences = self.absences
        return device

    @property
    def unfinished(self) -> bool:
        """Whether an event of the script is active or still to come."""
        return bool(self._script or self._bad or self._held > self.now)

    def run(self, turn: Callable[[], object], seconds: float) -> None:
        """Advance the simulated time.

        Parameters
        ----------
        turn
            Function that processes the available blocks, such as
            `rtsep.realtime.worker.StreamWorker.turn`.
        seconds
            Duration on the device's clock; shorter if the device is lost for good.
        """
        end = self._exact(0) + seconds
        while self.active and self._exact(self._size) <= end:
            self._ticked += self._size
            self.now = self._exact(0) + self._jitter * self._random.random()
            while self.active and self._script and self._script[0].at <= self.now:
                self._begin(self._script.pop(0))
            if not self.active:
                return
            if self._held <= self.now:
                turn()
            self._exchange()
            if self._held <= self.now:
                turn()

    def _exact(self, later: int) -> float:
        """Return the time ``later`` samples after the start, without accumulated rounding."""
        return self._begun + (self._ticked + later) / self.sample_rate

    def _begin(self, event: Event) -> None:
        if isinstance(event, Hold):
            self._held = max(self._held, event.at + event.lasting)
        elif isinstance(event, Blocks):
            self._size = event.size
        elif isinstance(event, Bad):
            self._bad, self._value = self._bad + event.samples, event.value
        elif isinstance(event, Rate):
            self.absences += 1
            self.active, self._next_rate = False, event.rate
        else:
            self.absences += 1
            self._begun += event.lasting
            self.now += event.lasting
            self.resume()

    def _exchange(self) -> None:
        heard, played = self._heard[: self._size], self._played[: self._size]
        time = self.input.written
        if self._own_rate:
            self._listen()
        else:
            self._speak(time, heard)
        self.tick(heard, played, self.now)
        self._hear(time, played)

    def _listen(self) -> None:
        """Deliver the blocks that a microphone with its own clock has completed by now."""
        heard = self._heard[: self._size]
        while self._spoken_at <= self.now:
            if self._spoken:
                self._speak(round(self._spoken * self._own_rate) - self._size, heard)
                self.listen(heard, self._spoken_at)
            self._spoken += self._size / self._own_rate
            self._spoken_at = self._spoken + self._jitter * self._random.random()

    def _speak(self, time: int, heard: Float32) -> None:
        self._sound(time, heard)
        bad = min(self._bad, self._size)
        heard[:bad] = self._value
        self._bad -= bad
