"""A voice that a model is to keep, and its file; `rtsep.learned.enrolment` makes one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rtsep.errors import ControlError, LearnedError
from rtsep.files.atomic import replacing
from rtsep.runtime.bundle import Bundle

FORMAT = "rtsep.voice.1"
MAX_BYTES = 1 << 18
"""Larger files are rejected before reading."""


@dataclass(frozen=True)
class Voice:
    """A voice that a model keeps.

    Attributes
    ----------
    model
        Name of the model.
    control, values
        The control that is set, and its values.
    made_by
        See `maker`; values of another one mean something else.
    """

    model: str
    control: str
    values: tuple[float, ...]
    made_by: str

    def applied(self, bundle: Bundle) -> Bundle:
        """Return the bundle with the voice as the initial value of its control.

        Raises
        ------
        LearnedError
            The bundle is another model, or another version of it.
        """
        name = bundle.metadata["name"]
        if self.made_by != maker(bundle):
            other = "another version" if name == self.model else f"the model {self.model!r}"
            raise LearnedError(
                f"the voice was made for {other}, not for this {name!r}: make it again with "
                f"`rtsep enroll --model`"
            )
        try:
            return bundle.controlled({self.control: self.values})
        except ControlError as error:
            raise LearnedError(f"the voice does not fit {name!r}: {error}") from None


def maker(bundle: Bundle) -> str:
    """Return a digest of the graph in a bundle that makes voices."""
    return hashlib.sha256(bundle.metadata.get("enroller", "").encode()).hexdigest()[:16]


def write(voice: Voice, path: Path) -> None:
    """Write a voice, atomically."""
    try:
        with replacing(path) as part:
            part.write_text(json.dumps({"format": FORMAT, **asdict(voice)}), encoding="utf-8")
    except OSError as error:
        raise LearnedError(f"{path} can't be written: {error.strerror}") from None


def read(path: Path) -> Voice:
    """Read a voice.

    Raises
    ------
    LearnedError
        The file can't be read or is no voice.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise LearnedError(f"{path} is too large for a voice of `rtsep enroll`")
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT:
            raise ValueError
        voice = Voice(
            model=str(fields["model"]),
            control=str(fields["control"]),
            values=tuple(float(x) for x in fields["values"]),
            made_by=str(fields["made_by"]),
        )
    except OSError as error:
        raise LearnedError(f"{path} can't be read: {error.strerror}") from None
    except LearnedError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise LearnedError(f"{path} is not a voice of `rtsep enroll`") from None
    return voice
