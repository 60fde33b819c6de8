"""What a stream does when its device goes away: say so, wait, and go on when it is back."""

from __future__ import annotations

import time
from collections.abc import Callable

from rtsep.devices.device import Device
from rtsep.errors import AudioFileError, DeviceError, RateError
from rtsep.realtime.recorder import Takes
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.engine import Engine

RETRY_S = 0.2
"""Pause between two looks for a lost device, in seconds."""


class Comeback:
    """Waits for a lost device.

    Parameters
    ----------
    live
        The stream.
    say
        Is told, in one sentence, what happens.
    engine
        Makes an engine for another sample rate, in Hz, around the same model.
    takes
        Makes the next recorder where there was one; a file has one rate.
    give_up_s
        After how long away, in seconds; never if None.

    Attributes
    ----------
    losses, away_s
        How often the device went, and how long it was away in all, in seconds.
    unwritten
        A recording that ended with the device's rate and could not be written.
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
        """Wait until the device is back, or it is ``enough``; false if it was given up.

        Called again for a device that is still away, it goes on waiting.
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
        """Go on at another rate: the model keeps its state, the recording begins a new folder."""
        live = self._live
        try:
            device = live.device.at_rate(rate)
        except DeviceError:  # gone again
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
