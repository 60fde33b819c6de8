"""Wait for a lost device, reopen it, and continue the stream."""

from __future__ import annotations

import time
from collections.abc import Callable

from rtsep.devices.device import Device
from rtsep.errors import AudioFileError, DeviceError, RateError
from rtsep.realtime.recorder import Takes
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.engine import Engine

RETRY_S = 0.2
"""Interval between attempts to reopen a lost device, in seconds."""


class Comeback:
    """Waits for a lost device.

    Parameters
    ----------
    live
        The worker of the stream.
    say
        Function that receives messages.
    engine
        Function that makes an engine for another sample rate in Hz, with the same model.
    takes
        The recordings; after a change of rate, the next one is started.
    give_up_s
        Time after which to give up, in seconds; never if None.

    Attributes
    ----------
    losses, away_s
        Number of losses, and total time without the device in seconds.
    unwritten
        Error of a recording that could not be written, if any.
    """

    def __init__(
        self,
        live: StreamWorker,
        say: Callable[[str], object],
        engine: Callable[[int], Engine],
        takes: Takes,
        give_up_s: float | None,
    ) -> None:
        self._live, self._say = live, say
        self._engine, self._takes = engine, takes
        self._give_up_s = give_up_s
        self._gone: Device | None = None
        self._since = self._before = 0.0
        self.losses, self.away_s = 0, 0.0
        self.unwritten: AudioFileError | None = None

    def wait(self, enough: Callable[[], bool]) -> bool:
        """Wait until the device is back or ``enough`` returns True; return False to give up.

        If called again for the same loss, the waiting time continues.
        """
        device = self._live.device
        if self._gone is not device:
            self._gone, self._since, self._before = device, time.monotonic(), self.away_s
            self.losses += 1
            self._say(f"{device.name} has gone; waiting for it")
        while not self._back():
            self.away_s = self._before + time.monotonic() - self._since
            if enough():
                return True
            if self._give_up_s is not None and self.away_s - self._before >= self._give_up_s:
                return False
            time.sleep(RETRY_S)
        self._gone = None
        self.away_s = self._before + time.monotonic() - self._since
        self._say(
            f"{self._live.device.name} is back after {self.away_s - self._before:.1f} s, "
            f"{self._live.device.sample_rate} Hz"
        )
        return True

    def _back(self) -> bool:
        try:
            return self._live.device.reopen()
        except RateError as error:
            return self._move(error.rate)

    def _move(self, rate: int) -> bool:
        """Continue at another rate: keep the model's state, start a new recording."""
        live = self._live
        try:
            device = live.device.at_rate(rate)
        except DeviceError:  # lost again
            return False
        recording = live.recorder is not None
        try:
            live.end_recording(keep_state=True)
        except AudioFileError as error:
            self.unwritten = error
        engine = self._engine(rate)
        recorder = self._takes.begin(engine, rate) if recording else None
        live.move(device, engine, recorder)
        return True
