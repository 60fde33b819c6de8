"""Every error that rtsep raises on purpose: all are `RtsepError`, the message is one sentence.

Each also derives from what it would be without this class: ``except ValueError`` keeps working.
"""

from __future__ import annotations


class RtsepError(Exception):
    """Base of all errors below; the message names what was asked for and what is possible."""


# The stream and its model


class SpecError(RtsepError, ValueError):
    """A stream description that cannot be run; the message holds the offending values."""


class BundleError(RtsepError, ValueError):
    """A file that cannot be run as a bundle; the message names it and the reason."""


class LearnedError(RtsepError, ValueError):
    """A source that cannot be learned, read or combined; the message says which and why."""


class NoTapeError(RtsepError, ValueError):
    """A graph that cannot run off the tape; the message names the operation in the way."""


class SoundError(RtsepError, ValueError):
    """Sound, or a rate or gain of it, that cannot be separated; the message has the valid ones."""


class AudioFileError(RtsepError, ValueError):
    """A file that cannot be read or written; the message names it and the reason."""


# Devices and running streams


class DeviceError(RtsepError, ValueError):
    """A device that cannot be used as asked; the message says what was asked for."""


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


class GainError(RtsepError, ValueError):
    """An invalid gain; the message gives the valid range."""


class ControlError(RtsepError, ValueError):
    """A request to a running stream that cannot be fulfilled; the stream goes on as it was."""


# The command line and the panel


class OptionError(RtsepError, ValueError):
    """An option with an invalid value, or options that contradict each other."""


class PresetError(RtsepError, ValueError):
    """A preset that does not exist, or cannot be read or written."""


class ExtraError(RtsepError, ValueError):
    """A package that is needed is not installed; the message has the command that installs it."""


class BenchError(RtsepError, ValueError):
    """A measurement that cannot be made; the message says why."""


class EvaluationError(RtsepError, ValueError):
    """Files or folders that cannot be evaluated."""


class ServerError(RtsepError, ValueError):
    """The panel's server cannot work as asked."""


class GuardError(RtsepError, ValueError):
    """The panel's server was asked to open in a way that would let others in."""


class ProtocolError(RtsepError, ValueError):
    """A message of a browser that ends its session; the text says why."""


# Training


class ContractError(RtsepError, AssertionError):
    """A model breaks the streaming contract; the message says which part and by how much."""


class CheckpointError(RtsepError, ValueError):
    """A file that is no checkpoint of rtsep; the message names it and the reason."""


class RecipeError(RtsepError, ValueError):
    """A recipe that cannot be trained; the message names the field."""


class CorpusError(RtsepError, ValueError):
    """A data folder that cannot be trained on; the message names it and the reason."""


class NotFiniteError(RtsepError, ValueError):
    """The loss became NaN or Inf; the message names the last good checkpoint."""


class StoppedError(RtsepError, ValueError):
    """Training was interrupted by Ctrl-C; everything up to there is kept."""
