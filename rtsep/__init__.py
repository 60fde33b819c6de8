"""Real-time, low-latency audio source separation on a live microphone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rtsep.errors import (
    AdoptError,
    AudioFileError,
    BenchError,
    BundleError,
    CheckpointError,
    ContractError,
    ControlError,
    CorpusError,
    DeviceError,
    EvaluationError,
    ExtraError,
    GainError,
    GuardError,
    LearnedError,
    LostError,
    NoTapeError,
    NotFiniteError,
    OptionError,
    PlaceError,
    PresetError,
    ProtocolError,
    RateError,
    RecipeError,
    RemoteError,
    RtsepError,
    ServerError,
    ShelfError,
    SoundError,
    SpecError,
    StoppedError,
)
from rtsep.version import __version__

if TYPE_CHECKING:
    from rtsep.api import Separation, load, separate
    from rtsep.serve.client import RemoteSeparation, remote
    from rtsep.stream import LiveStream, live

__all__ = [
    "AdoptError",
    "AudioFileError",
    "BenchError",
    "BundleError",
    "CheckpointError",
    "ContractError",
    "ControlError",
    "CorpusError",
    "DeviceError",
    "EvaluationError",
    "ExtraError",
    "GainError",
    "GuardError",
    "LearnedError",
    "LiveStream",
    "LostError",
    "NoTapeError",
    "NotFiniteError",
    "OptionError",
    "PlaceError",
    "PresetError",
    "ProtocolError",
    "RateError",
    "RecipeError",
    "RemoteError",
    "RemoteSeparation",
    "RtsepError",
    "Separation",
    "ServerError",
    "ShelfError",
    "SoundError",
    "SpecError",
    "StoppedError",
    "__version__",
    "live",
    "load",
    "remote",
    "separate",
]

_HOMES = {
    **{"LiveStream": "stream", "live": "stream"},
    **{"RemoteSeparation": "serve.client", "remote": "serve.client"},
}
"""Where a public name lives, if not in ``rtsep.api``; imported when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rtsep' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"rtsep.{_HOMES.get(name, 'api')}"), name)
    globals()[name] = value
    return value
