"""The messages between browser and server over the WebSocket of a session.

Text messages are JSON objects with a ``type``. The browser starts with ``hello``, then sends
``gain`` (source, db), ``mute``, ``solo`` (source, on), ``bypass`` (on), ``control`` (name, values)
and ``model`` (name). The server sends ``ready`` when a model runs, ``status`` several times per
second, and ``problem`` when a command failed. If the sound is that of the server's device, the
browser starts with ``watch``, may also send ``record`` (on) and ``device`` (name), and receives
``controls`` whenever any session changes them.

Binary messages start with a header of 8 bytes: the kind (uint8), three zeros, and the number of the
frame (uint32). Interleaved samples follow. All values are little-endian. All frames of a session
have the length of its hello; a reply has the number of its frame. Numbers increase; missing ones
are sound that the browser dropped.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rtsep.controls import MOST_VALUES
from rtsep.dsp.mixer import HIGHEST_GAIN_DB, Mixer, level_db, linear
from rtsep.errors import ProtocolError
from rtsep.runtime.pipeline import LoadedModel
from rtsep.spec import Float32

SUBPROTOCOL = "rtsep.v1"
MAX_MESSAGE = 1 << 16
"""Largest message in bytes; longer than the longest frame."""
MAX_TEXT = 1 << 12
"""Largest number of characters of a text message."""
RATES_HZ = (
    8000,
    11025,
    12000,
    16000,
    22050,
    24000,
    32000,
    44100,
    48000,
    88200,
    96000,
    176400,
    192000,
)
"""Accepted sample rates; each needs a table of filters."""
FRAME_S = 0.002, 0.05
"""Shortest and longest frame, in seconds."""
GAIN_DB = -60.0, HIGHEST_GAIN_DB
"""Range of a gain; the lowest is silence."""
AUDIO, SPECTRA = 1, 2
"""Kinds of binary messages."""

_HEADER = struct.Struct("<BxxxI")
_SHAPE = struct.Struct("<BBH")
_SCALE = {"f32": 1.0, "s16": 32768.0}
_DTYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "s16": np.dtype("<i2")}


@dataclass(frozen=True)
class Hello:
    """Format of a session's sound.

    Attributes
    ----------
    sample_rate
        Sample rate of the browser, in Hz.
    channels
        1 or 2, in both directions.
    frame
        Samples per message.
    sample_format
        ``"f32"`` or ``"s16"``, in both directions.
    model
        Name of the first model; the server's default if None.
    """

    sample_rate: int
    channels: int
    frame: int
    sample_format: Literal["f32", "s16"]
    model: str | None = None

    @property
    def message_length(self) -> int:
        """Length of a message with sound, in bytes."""
        return _HEADER.size + self.frame * self.channels * _DTYPES[self.sample_format].itemsize


@dataclass(frozen=True)
class Control:
    """A change of the mixer; ``source`` is empty for the bypass, a gain's ``value`` is in dB."""

    kind: Literal["gain", "mute", "solo", "bypass"]
    source: str
    value: float

    def set(self, mixer: Mixer, sources: tuple[str, ...]) -> bool:
        """Apply the change; return whether the source exists."""
        if self.kind == "bypass":
            mixer.bypass = bool(self.value)
            return True
        if self.source not in sources:
            return False
        source = sources.index(self.source)
        if self.kind == "gain":
            mixer.gains[source] = 0.0 if self.value <= GAIN_DB[0] else linear(self.value)
        elif self.kind == "mute":
            mixer.muted[source] = bool(self.value)
        else:
            mixer.soloed[source] = bool(self.value)
        return True


@dataclass(frozen=True)
class SetControl:
    """Set a control of the model."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class SwitchModel:
    """Change the model."""

    name: str


@dataclass(frozen=True)
class SwitchDevice:
    """Change the device."""

    name: str


@dataclass(frozen=True)
class Record:
    """Start or end a recording."""

    on: bool


Command = Control | SetControl | SwitchModel | SwitchDevice | Record


def parse_hello(text: str) -> Hello:
    """Read the first message.

    Raises
    ------
    ProtocolError
        The message is not a hello, or its format is not supported.
    """
    message = parsed(text)
    if message["type"] != "hello":
        raise ProtocolError("a session begins with hello")
    rate, channels = _whole(message, "sample_rate"), _whole(message, "channels")
    frame, name = _whole(message, "frame"), message.get("format")
    if rate not in RATES_HZ:
        raise ProtocolError(f"sample_rate must be one of {', '.join(map(str, RATES_HZ))} Hz")
    if channels not in (1, 2):
        raise ProtocolError("channels must be 1 or 2")
    if not FRAME_S[0] <= frame / rate <= FRAME_S[1]:
        raise ProtocolError("a frame must last from 2 to 50 ms")
    if name not in ("f32", "s16"):
        raise ProtocolError("format must be f32 or s16")
    model = message.get("model")
    if model is not None:
        model = _text(message, "model")
    return Hello(rate, channels, frame, name, model)


def parse_watch(text: str) -> None:
    """Read the first message of a session of the server's device.

    Raises
    ------
    ProtocolError
        The message is not a watch.
    """
    if parsed(text)["type"] != "watch":
        raise ProtocolError("this server separates the sound of its own device: begin with watch")


def parse_command(text: str) -> Command:
    """Read a command.

    Raises
    ------
    ProtocolError
        The message is not a valid command.
    """
    message = parsed(text)
    kind = message["type"]
    if kind == "model":
        return SwitchModel(_text(message, "name"))
    if kind == "device":
        return SwitchDevice(_text(message, "name"))
    if kind == "record":
        return Record(_flag(message))
    if kind == "bypass":
        return Control("bypass", "", _flag(message))
    if kind == "mute" or kind == "solo":
        return Control(kind, _text(message, "source"), _flag(message))
    if kind == "control":
        values = message.get("values")
        if not isinstance(values, list) or len(values) > MOST_VALUES:
            raise ProtocolError("a control needs a list of values")
        if not all(isinstance(value, int | float) for value in values):
            raise ProtocolError("the values of a control must be numbers")
        return SetControl(_text(message, "name"), tuple(values))
    if kind == "gain":
        level_db = message.get("db")
        if isinstance(level_db, bool) or not isinstance(level_db, int | float):
            raise ProtocolError("a gain needs db")
        if not GAIN_DB[0] <= level_db <= GAIN_DB[1]:  # NaN too
            raise ProtocolError(f"a gain must be from {GAIN_DB[0]:.0f} to {GAIN_DB[1]:.0f} dB")
        return Control("gain", _text(message, "source"), float(level_db))
    raise ProtocolError("there is no such type of message")


def frame_number(message: bytes, hello: Hello) -> int:
    """Check a binary message of the browser and return its number.

    Raises
    ------
    ProtocolError
        The message is not a frame of this session's format.
    """
    if len(message) != hello.message_length:
        raise ProtocolError(f"a frame must have {hello.message_length} bytes, not {len(message)}")
    kind, number = _HEADER.unpack_from(message)
    if kind != AUDIO:
        raise ProtocolError("the browser sends sound only")
    return int(number)


def decode(message: bytes, hello: Hello, out: Float32) -> None:
    """Decode the sound of a checked message to ``out`` (frame, channels)."""
    samples = np.frombuffer(message, _DTYPES[hello.sample_format], offset=_HEADER.size)
    np.divide(samples.reshape(out.shape), _SCALE[hello.sample_format], out=out, dtype=np.float32)


def encode(number: int, sound: Float32, hello: Hello) -> bytes:
    """Encode finite ``sound`` (frame, channels) as frame ``number``."""
    if hello.sample_format == "s16":
        sound = np.clip(np.rint(sound * _SCALE["s16"]), -32768, 32767)
    samples: bytes = sound.astype(_DTYPES[hello.sample_format], copy=False).tobytes()
    return _HEADER.pack(AUDIO, number) + samples


def encode_spectra(
    number: int, peaks: np.ndarray[Any, Any], columns: np.ndarray[Any, Any]
) -> bytes:
    """Encode columns of spectrograms.

    Parameters
    ----------
    number
        Number of the newest frame in them.
    peaks
        (signals,) uint8: peaks since the last message.
    columns
        (columns, signals, bands) uint8.
    """
    count, signals, bands = columns.shape
    head = _HEADER.pack(SPECTRA, number) + _SHAPE.pack(count, signals, bands)
    return b"".join((head, peaks.tobytes(), columns.tobytes()))


def described(mixer: Mixer, values: Mapping[str, Sequence[float]] | None = None) -> dict[str, Any]:
    """Return a mixer's controls for the page, in the order of its sources, and the model's."""
    levels = [max(level_db(float(gain)), GAIN_DB[0]) for gain in mixer.gains]
    return {
        "gains_db": [round(level, 1) for level in levels],
        "muted": mixer.muted.tolist(),
        "soloed": mixer.soloed.tolist(),
        "bypass": mixer.bypass,
        "values": dict(values or {}),
    }


def faders(loaded: LoadedModel) -> list[dict[str, Any]]:
    """Return the controls of a model that have a fader for each value."""
    return [
        {"name": name, "labels": one.labels, "low": one.low, "high": one.high}
        for name, one in loaded.bundle.controls.items()
        if one.labels
    ]


def parsed(text: str) -> dict[str, Any]:
    """Read a text message: a JSON object with a ``type``.

    Raises
    ------
    ProtocolError
        The text is something else, or too long.
    """
    if len(text) > MAX_TEXT:
        raise ProtocolError(f"a text message has at most {MAX_TEXT} characters")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("a text message must be JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError("a text message must be an object with a type")
    return message


def _whole(message: dict[str, Any], key: str) -> int:
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProtocolError(f"{key} must be a whole number")
    return value


def _text(message: dict[str, Any], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str):
        raise ProtocolError(f"{key} must be a text")
    return value


def _flag(message: dict[str, Any]) -> bool:
    value = message.get("on")
    if not isinstance(value, bool):
        raise ProtocolError("on must be true or false")
    return value
