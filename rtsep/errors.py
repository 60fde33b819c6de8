"""What can be wrong with a device."""

from __future__ import annotations


class DeviceError(ValueError):
    """A device that cannot be used as asked; the message is one sentence with what was asked."""


class LostError(DeviceError):
    """The process that hosts PortAudio has ended, or does not answer."""


class RateError(DeviceError):
    """A device that came back with another sample rate.

    Parameters
    ----------
    rate
        In Hz.
    """

    def __init__(self, rate: int) -> None:
        super().__init__(f"the device has a rate of {rate} Hz now")
        self.rate = rate
