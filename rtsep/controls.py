"""Controls of a model: named inputs that a user sets while the model runs.

The graph of a model with controls has an input ``control.NAME``, (streams, values), for each; the
metadata of its bundle describes them as JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rtsep.errors import ControlError

PREFIX = "control."
"""Of the names of graph inputs."""
MOST, MOST_VALUES = 16, 1024
"""Largest number of controls of a model, and of values of a control."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class ModelControl:
    """A control: a vector of values, the same for all frames until it is set again.

    Attributes
    ----------
    meaning
        What it does, in one sentence.
    default
        Initial values.
    low, high
        Range of every value.
    labels
        Names of the values; empty if they have none.

    Raises
    ------
    ControlError
        A field is invalid, or they contradict each other.
    """

    meaning: str
    default: tuple[float, ...]
    low: float = 0.0
    high: float = 1.0
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the fields."""
        if not self.meaning or not self.meaning.isprintable():
            raise ControlError("the meaning of a control must be a line of text")
        if not -math.inf < self.low < self.high < math.inf:
            raise ControlError(f"{self.low:g} to {self.high:g} is no range of a control")
        if not 1 <= len(self.default) <= MOST_VALUES:
            raise ControlError(f"a control has 1 to {MOST_VALUES} values, not {len(self.default)}")
        if self.labels and len(set(self.labels)) != len(self.default):
            raise ControlError(
                f"{len(self.default)} values need as many different labels, not {self.labels}"
            )
        for label in self.labels:
            _check_name(label)
        self.check(self.default)

    def check(self, values: Iterable[float]) -> tuple[float, ...]:
        """Return values as floats; raise if their number or one of them is invalid."""
        found = tuple(float(value) for value in values)
        if len(found) != len(self.default):
            raise ControlError(f"{len(self.default)} values are needed, not {len(found)}")
        for value in found:
            if not self.low <= value <= self.high:  # NaN too
                raise ControlError(f"{value:g} is not from {self.low:g} to {self.high:g}")
        return found

    def read(self, text: str) -> tuple[float, ...]:
        """Read values: labels, or numbers separated by commas.

        Labels are joined by ``+``; they get the highest value, others the lowest.

        Raises
        ------
        ControlError
            The text is neither, or a value is out of range.
        """
        chosen = text.split("+")
        if self.labels and set(chosen) <= set(self.labels):
            return tuple(self.high if label in chosen else self.low for label in self.labels)
        try:
            values = [float(value) for value in text.split(",")]
        except ValueError:
            named = f"one of {', '.join(self.labels)}, " if self.labels else ""
            raise ControlError(
                f"{text!r} is not {named}or {len(self.default)} numbers separated by commas"
            ) from None
        return self.check(values)


def check(
    settings: Mapping[str, Any], controls: Mapping[str, ModelControl]
) -> dict[str, tuple[float, ...]]:
    """Check values by the name of their control: numbers, or a text as in `ModelControl.read`.

    Raises
    ------
    ControlError
        There is no such control, or the value is invalid.
    """
    found = {}
    for name, value in settings.items():
        if name not in controls:
            there = f"there are: {', '.join(controls)}" if controls else "the model has none"
            raise ControlError(f"there is no control {name!r}; {there}")
        one = controls[name]
        try:
            found[name] = one.read(value) if isinstance(value, str) else one.check(value)
        except ControlError as error:
            raise ControlError(f"control {name}: {error}") from None
    return found


def describe(controls: Mapping[str, ModelControl]) -> str:
    """Return the controls as JSON, for the metadata of a bundle."""
    return json.dumps({name: asdict(control) for name, control in controls.items()})


def parse(text: str) -> dict[str, ModelControl]:
    """Read what `describe` returned.

    Raises
    ------
    ControlError
        The text is not such JSON, or a control is invalid.
    """
    try:
        fields = json.loads(text)
        found = {
            _check_name(name): ModelControl(
                meaning=str(one["meaning"]),
                default=tuple(float(value) for value in one["default"]),
                low=float(one["low"]),
                high=float(one["high"]),
                labels=tuple(str(label) for label in one["labels"]),
            )
            for name, one in fields.items()
        }
    except ControlError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ControlError("the description of the controls is invalid") from None
    if len(found) > MOST:
        raise ControlError(f"it has {len(found)} controls, more than the limit of {MOST}")
    return found


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ControlError(f"{name!r} is not valid as the name of a control or of its values")
    return name
