"""The description of a model by others: what its inputs and outputs are, windows, hop, delay.

It is a TOML file, see ``docs/howto-adopt.md``. Those of known models are in the folder ``known``.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from rtsep.dsp.windows import NAMES
from rtsep.errors import AdoptError, SpecError
from rtsep.spec import Spec

KINDS = ("spectrum", "mask_then_samples", "samples")
"""Kinds of models, each a module of this package."""
AXES = ("stream", "frame", "channel", "bin", "part", "sample")
"""Names of axes; all but the last three have size 1. ``part`` is real part, then imaginary part."""
RATES_HZ = (
    *(8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    *(88200, 96000, 176400, 192000),
)
"""Sample rates that devices have."""
KNOWN = Path(__file__).with_name("known")
"""Folder of the descriptions of known models."""
MAX_FILE_BYTES = 1 << 20

Values = TypeVar("Values")


@dataclass(frozen=True)
class Texts:
    """What the card says of the weights, in the words of their authors.

    Attributes
    ----------
    model
        Architecture and paper.
    author
        Who made the weights.
    licence
        Licence of the weights.
    training
        Data they were trained on.
    quality
        Scores, and who measured them.
    """

    model: str
    author: str
    licence: str
    training: str = "not stated"
    quality: str = "not measured"


UNKNOWN = "unknown: these are not the weights that the authors of the model published"
"""Author and licence of other weights in a known graph."""


@dataclass(frozen=True)
class NetworkDescription:
    """Inputs and outputs of one graph.

    Attributes
    ----------
    input, output
        Names of the sound's input and of the estimate's output.
    input_axes, output_axes
        Names of their axes, see `AXES`.
    states
        For each input that carries a cache, the output that has its next value.
    options
        Constant values of other inputs.
    """

    input: str
    output: str
    input_axes: tuple[str, ...]
    output_axes: tuple[str, ...]
    states: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """A model by others.

    Attributes
    ----------
    kind
        One of `KINDS`.
    sample_rate
        In Hz.
    window
        Name of the window pair, see `rtsep.dsp.windows.pair`.
    window_length, hop_length
        In samples.
    networks
        The graphs in order.
    texts
        What the card says.
    delay
        Samples by which the estimate lags behind the mixture, without the overlap of the windows.
    gain
        The estimate is multiplied by it: for example ``window_length / hop_length`` if the authors
        add overlapping blocks without a window.
    source, rest
        Names of the estimate and of the mixture without it; an empty ``rest`` leaves that out.
    sha256
        SHA-256 of the files that the texts are about; empty for any.
    """

    kind: str
    sample_rate: int
    window: str
    window_length: int
    hop_length: int
    networks: tuple[NetworkDescription, ...]
    texts: Texts
    delay: int = 0
    gain: float = 1.0
    source: str = "speech"
    rest: str = "noise"
    sha256: tuple[str, ...] = ()

    def spec(self) -> Spec:
        """Return the spec of the bundle.

        Raises
        ------
        AdoptError
            A field is invalid.
        """
        if self.kind not in KINDS:
            raise AdoptError(f"kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.sample_rate not in RATES_HZ:
            rates = ", ".join(map(str, RATES_HZ))
            raise AdoptError(
                f"sample_rate {self.sample_rate} is a rate that no device has; there are: {rates}"
            )
        if self.window not in NAMES:
            raise AdoptError(f"window must be one of {', '.join(NAMES)}, not {self.window!r}")
        if self.delay < 0:
            raise AdoptError(f"delay must be 0 samples or more, not {self.delay}")
        if not 0.0 < abs(self.gain) < math.inf:
            raise AdoptError(f"gain must be a number other than 0, not {self.gain}")
        blocks = self.kind == "samples" and self.window_length == self.hop_length
        if self.delay % max(self.hop_length, 1) and not blocks:
            raise AdoptError(
                f"delay must be a multiple of hop_length {self.hop_length} if frames overlap, "
                f"not {self.delay}"
            )
        count = 2 if self.kind == "mask_then_samples" else 1
        if len(self.networks) != count:
            raise AdoptError(f"kind {self.kind!r} has {count} networks, not {len(self.networks)}")
        try:
            return Spec(
                sample_rate=self.sample_rate,
                channels=1,
                frontend="stft" if self.kind == "spectrum" else "waveform",
                window=self.window,
                window_length=self.window_length,
                hop_length=self.hop_length,
                chunk=1,
                lookahead=-(-self.delay // self.hop_length),
                sources=(self.source, self.rest) if self.rest else (self.source,),
            )
        except SpecError as error:
            raise AdoptError(str(error)) from None


def read(path: Path) -> Description:
    """Read a description file.

    Raises
    ------
    AdoptError
        The file can't be read, or a field is missing, unknown or of another type.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise AdoptError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
        table = tomllib.loads(text.decode())
    except OSError as error:
        raise AdoptError(f"{path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AdoptError(f"{path} is not TOML: {error}") from None
    try:
        return of_table(table)
    except AdoptError as error:
        raise AdoptError(f"{path}: {error}") from None


def of_table(table: Mapping[str, Any]) -> Description:
    """Make a description of the table of a TOML file; see `read`."""
    table = dict(table)
    networks = table.get("networks", [])
    if not isinstance(networks, list) or not all(isinstance(each, dict) for each in networks):
        raise AdoptError("networks must be a list of tables, [[networks]]")
    table["networks"] = tuple(
        _filled(NetworkDescription, each, f"networks[{k}]") for k, each in enumerate(networks)
    )
    texts = table.get("texts", {})
    if not isinstance(texts, dict):
        raise AdoptError("texts must be a table, [texts]")
    table["texts"] = _filled(Texts, texts, "texts")
    description = _filled(Description, table, "")
    for network in description.networks:
        for name in (*network.input_axes, *network.output_axes):
            if name not in AXES:
                raise AdoptError(f"axes must be of {', '.join(AXES)}, not {name!r}")
    description.spec()
    return description


def known() -> dict[str, Description]:
    """Return the descriptions of the known models, by name."""
    return {path.stem: read(path) for path in sorted(KNOWN.glob("*.toml"))}


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "tuple[str, ...]": (list, tuple),
    "Mapping[str, str]": (dict,),
    "Mapping[str, float]": (dict,),
    "tuple[NetworkDescription, ...]": (tuple,),
    "Texts": (Texts,),
}
_INSIDE: dict[str, tuple[type, ...]] = {
    "tuple[str, ...]": (str,),
    "Mapping[str, str]": (str,),
    "Mapping[str, float]": (int, float),
}


def _filled(kind: type[Values], table: Mapping[str, Any], place: str) -> Values:
    """Make a dataclass of a table, after a check of names and types."""
    prefix = f"{place}." if place else ""
    known = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    for name, value in table.items():
        if name not in known:
            raise AdoptError(f"{prefix}{name} is unknown; there are: {', '.join(known)}")
        wanted = known[name]
        inside = list(value.values()) if isinstance(value, dict) else value
        fits = isinstance(value, _TYPES[wanted]) and not isinstance(value, bool)
        if fits and wanted in _INSIDE:
            fits = all(isinstance(x, _INSIDE[wanted]) and not isinstance(x, bool) for x in inside)
        if not fits:
            raise AdoptError(f"{prefix}{name} has the wrong type: {value!r}")
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in table.items()}
    try:
        return kind(**values)
    except TypeError:
        given = {f.name for f in fields(kind) if f.name in table}  # type: ignore[arg-type]
        missing = [name for name in _required(kind) if name not in given]
        raise AdoptError(f"{prefix}{missing[0]} is missing") from None


def _required(kind: type[Any]) -> list[str]:
    """Return the fields of a dataclass without a default."""
    from dataclasses import MISSING

    return [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
