"""Presets: named options of `rtsep run` in TOML; the user's override the shipped ones."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from rtsep.errors import PresetError
from rtsep.files.atomic import replacing

_SHIPPED = Path(__file__).parent
_NAME = re.compile(r"[\w-]+")
_PARAMETERS = {"limit": "limit_db", "buffer": "buffer_ms"}
"""Parameters whose names differ from their options."""
_TABLES = "gains", "controls"


@dataclass(frozen=True)
class Preset:
    """Options of a preset; those that it does not set have their defaults.

    Attributes
    ----------
    model
        A shipped model's name, or a bundle's path.
    gains
        Gain of each source in dB; -inf is silence, as are sources that are not named.
    limit
        Output limit in dB re full scale.
    on_late
        ``"dry"`` or ``"mute"``, as in `rtsep run`.
    buffer
        Headroom in ms.
    block
        Samples per device block.
    controls
        Values of the model's controls, as in `rtsep run --control`.
    """

    model: str | None = None
    gains: dict[str, float] = field(default_factory=dict)
    limit: float | None = None
    on_late: str | None = None
    buffer: float | None = None
    block: int | None = None
    controls: dict[str, str] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """Return the options of `rtsep run`, by the names of their parameters."""
        options = {_PARAMETERS.get(key, key): value for key, value in self._given().items()}
        if self.gains:
            options["gain"] = [f"{source}={level_db}" for source, level_db in self.gains.items()]
        if self.controls:
            options["controls"] = [f"{name}={value}" for name, value in self.controls.items()]
        return options

    def _given(self) -> dict[str, Any]:
        """Return the fields that are set, without the tables."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _TABLES}
        return {key: value for key, value in values.items() if value is not None}

    def save(self, name: str) -> Path:
        """Write the preset to the user's folder; return its path.

        Raises
        ------
        PresetError
            The file can't be written.
        """
        path = folder() / f"{_checked(name)}.toml"
        lines = [f"{key} = {_toml(value)}" for key, value in self._given().items()]
        for table in _TABLES:
            rows = getattr(self, table).items()
            lines += ["", f"[{table}]", *(f"{_toml(key)} = {_toml(value)}" for key, value in rows)]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError as error:
            raise PresetError(f"cannot write {path}: {error.strerror}") from None
        return path


def folder() -> Path:
    """Return the folder of the user's presets."""
    return platformdirs.user_config_path("rtsep") / "scenes"


def names() -> list[str]:
    """Return the names of all presets."""
    return sorted({path.stem for place in (folder(), _SHIPPED) for path in place.glob("*.toml")})


def find(name: str) -> Preset:
    """Read a preset by its name.

    Raises
    ------
    PresetError
        There is no preset of that name, or its file is invalid.
    """
    _checked(name)
    for path in (folder() / f"{name}.toml", _SHIPPED / f"{name}.toml"):
        if path.exists():
            return read(path)
    raise PresetError(f"there is no scene {name!r}; there are: {', '.join(names())}")


def read(path: Path) -> Preset:
    """Read a preset from a file; raise `PresetError` if it is invalid."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PresetError(f"scene {path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # UnicodeDecodeError too
        raise PresetError(f"scene {path} is not TOML: {_line(error)}") from None
    kinds: dict[str, tuple[str, type | tuple[type, ...]]] = {
        "model": ("a text", str),
        "gains": ("a table of sources and dB", dict),
        "limit": ("a number of dB re full scale", (int, float)),
        "on_late": ('"dry" or "mute"', str),
        "buffer": ("a number of ms", (int, float)),
        "block": ("a whole number of samples", int),
        "controls": ("a table of the model's controls", dict),
    }
    for key, value in content.items():
        if key not in kinds:
            raise PresetError(f"scene {path}: there is no {key!r}; there are: {', '.join(kinds)}")
        what, kind = kinds[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise PresetError(f"scene {path}: {key} must be {what}, not {value!r}")
    for source, level in content.get("gains", {}).items():
        if isinstance(level, bool) or not isinstance(level, int | float) or math.isnan(level):
            raise PresetError(f"scene {path}: the gain of {source} must be in dB, not {level!r}")
    for control, value in content.get("controls", {}).items():
        if not isinstance(value, str):
            raise PresetError(f"scene {path}: control {control} must be a text, not {value!r}")
    return Preset(**content)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise PresetError(f"a scene's name has letters, digits and hyphens only, not {name!r}")
    return name


def _toml(value: object) -> str:
    """Format a value or a key as TOML."""
    if isinstance(value, str):
        escaped = "".join(
            f"\\U{ord(c):08x}" if c in '"\\' or not c.isprintable() else c for c in value
        )
        return f'"{escaped}"'
    return str(value)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
