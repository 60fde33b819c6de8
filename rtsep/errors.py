"""The errors of rtsep. All derive from `RtsepError`, and each message is one sentence.

Each also derives from a built-in error, so ``except ValueError`` works.
"""

from __future__ import annotations


class RtsepError(Exception):
    """Base of all errors below; the message names the invalid value and the valid ones."""


# The stream and its model


class SpecError(RtsepError, ValueError):
    """An invalid spec of a stream; the message has the offending values."""


class BundleError(RtsepError, ValueError):
    """A file that cannot be run as a bundle; the message names it and the reason."""


class AdoptError(RtsepError, ValueError):
    """A model by others that can't be made a bundle; the message names the field and the reason."""


class ShelfError(RtsepError, ValueError):
    """A model that cannot be added or removed; the message names it and the reason."""


class LearnedError(RtsepError, ValueError):
    """A source that cannot be learned, read or combined; the message names it and the reason."""


class NoTapeError(RtsepError, ValueError):
    """A graph that cannot run on the tape; the message names the operation that prevents it."""


class SoundError(RtsepError, ValueError):
    """Invalid samples, rate or channels; the message has the valid ones."""


class AudioFileError(RtsepError, ValueError):
    """A file that cannot be read or written; the message names it and the reason."""


# Devices and running streams


class DeviceError(RtsepError, ValueError):
    """A device that does not exist or cannot be used with these settings."""


class LostError(DeviceError):
    """The child process of PortAudio has ended or does not reply."""


class RateError(DeviceError):
    """A lost device that is back with another sample rate.

    Parameters
    ----------
    rate
        The new rate, in Hz.
    """

    def __init__(self, rate: int) -> None:
        super().__init__(f"the device has a rate of {rate} Hz now")
        self.rate = rate


class GainError(RtsepError, ValueError):
    """An invalid gain; the message gives the valid range."""


class ControlError(RtsepError, ValueError):
    """An invalid control of a model, or a request to a running stream that cannot be executed.

    The stream is unchanged.
    """


# The command line and the panel


class OptionError(RtsepError, ValueError):
    """An option with an invalid value, or options that contradict each other."""


class PresetError(RtsepError, ValueError):
    """A preset that does not exist, or cannot be read or written."""


class ExtraError(RtsepError, ValueError):
    """A required package is not installed; the message has the command that installs it."""


class BenchError(RtsepError, ValueError):
    """A measurement that cannot be made; the message says why."""


class EvaluationError(RtsepError, ValueError):
    """Files or folders that cannot be evaluated."""


class ServerError(RtsepError, ValueError):
    """The panel's server cannot be started with these settings."""


class GuardError(RtsepError, ValueError):
    """Settings of the panel's server that would give others access."""


class ProtocolError(RtsepError, ValueError):
    """An invalid message of a browser, which ends its session; the text is the reason."""


class PlaceError(RtsepError, ValueError):
    """A server has no place for another stream; another one may have, or this one later."""


class RemoteError(RtsepError, ValueError):
    """A stream on another machine that cannot be started or go on; the message says why."""


# Training


class ContractError(RtsepError, AssertionError):
    """A model breaks the streaming contract; the message says which part and by how much."""


class CheckpointError(RtsepError, ValueError):
    """A file that is not a checkpoint of rtsep; the message names it and the reason."""


class RecipeError(RtsepError, ValueError):
    """An invalid recipe; the message names the field."""


class CorpusError(RtsepError, ValueError):
    """A data folder that cannot be trained on; the message names it and the reason."""


class NotFiniteError(RtsepError, ValueError):
    """The loss became NaN or Inf; the message names the last good checkpoint."""


class StoppedError(RtsepError, ValueError):
    """Training was interrupted by Ctrl-C; the run is saved."""
