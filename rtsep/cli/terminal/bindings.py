"""Key bindings of the view of a running stream; the help lists the same table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rtsep import weights
from rtsep.controls import ModelControl
from rtsep.dsp.mixer import HIGHEST_GAIN_DB, level_db, linear
from rtsep.realtime.control import Control

STEP_DB = 1.0
FADER_STEPS = 10
"""Steps from the lowest to the highest value of a control."""
LOWEST_DB, HIGHEST_DB = -40.0, HIGHEST_GAIN_DB
"""Range of gains set by keys, in dB; below it the source is silent."""


@dataclass(frozen=True)
class Key:
    """A binding: the keys as shown, as received, their help and their function."""

    label: str
    names: tuple[str, ...]
    what: str
    do: Callable[[Desk, str], None]


@dataclass
class Choice:
    """An open list to choose from."""

    title: str
    items: Callable[[], Sequence[str]]
    take: Callable[[str], object]
    place: int = 0


@dataclass(frozen=True)
class Fader:
    """One labelled value of a control, and where it stands."""

    name: str
    control: ModelControl
    index: int
    label: str
    value: float


class Desk:
    """Executes the keys of the view on a stream.

    Parameters
    ----------
    control
        Control of the stream.
    save
        Function that saves the scene and returns a message.
    say
        Function that receives this message.

    Attributes
    ----------
    chosen
        Index of the chosen source, or of a fader after them.
    choice
        The open list, or None.
    helping, ended
        Whether the help is shown, and whether the stream should end.
    """

    def __init__(
        self, control: Control, save: Callable[[], str], say: Callable[[str], object]
    ) -> None:
        self.control = control
        self.chosen = 0
        self.choice: Choice | None = None
        self.helping = self.ended = False
        self._save, self._say = save, say

    def press(self, key: str) -> None:
        """Execute a key of `KEYS`; ignore others."""
        self.chosen = min(self.chosen, self._rows - 1)
        if self.choice is not None:
            self._choose(self.choice, key)
            return
        was_helping, self.helping = self.helping, False
        if was_helping and key in ("?", "escape"):
            return
        for entry in KEYS:
            if key in entry.names:
                entry.do(self, key)

    @property
    def _sources(self) -> int:
        return len(self.control.live.mixer.gains)

    @property
    def faders(self) -> list[Fader]:
        """The labelled values of the model's controls."""
        loaded = self.control.loaded
        return [
            Fader(name, one, index, label, loaded.controls[name][index])
            for name, one in loaded.bundle.controls.items()
            for index, label in enumerate(one.labels)
        ]

    @property
    def _fader(self) -> Fader | None:
        """The chosen fader; None if a source is chosen."""
        faders, index = self.faders, self.chosen - self._sources
        return faders[index] if 0 <= index < len(faders) else None

    @property
    def _rows(self) -> int:
        return self._sources + len(self.faders)

    def _move(self, fader: Fader, value: float) -> None:
        values = list(self.control.loaded.controls[fader.name])
        values[fader.index] = min(max(value, fader.control.low), fader.control.high)
        self.control.loaded.set_controls({fader.name: values})

    def _choose(self, choice: Choice, key: str) -> None:
        items = choice.items()
        if key in ("up", "down"):
            choice.place = (choice.place + (1 if key == "down" else -1)) % len(items)
        elif key in ("escape", "q"):
            self.choice = None
        elif key.isdecimal() and 1 <= int(key) <= len(items):
            self.choice = None
            choice.take(items[int(key) - 1])
        elif key == "enter":
            self.choice = None
            choice.take(items[min(choice.place, len(items) - 1)])

    def pick(self, key: str) -> None:
        """Choose a source or fader by number, or the next or previous one."""
        if key.isdecimal():
            self.chosen = min(int(key), self._rows) - 1
        else:
            self.chosen = (self.chosen + (1 if key == "down" else -1)) % self._rows

    def gain(self, key: str) -> None:
        """Change the gain, or the fader's value, by a step."""
        up = key in ("right", "+", "=")
        if (fader := self._fader) is not None:
            step = (fader.control.high - fader.control.low) / FADER_STEPS
            self._move(fader, fader.value + (step if up else -step))
            return
        gains = self.control.live.mixer.gains
        now = level_db(float(gains[self.chosen]))
        wanted = max(now, LOWEST_DB - STEP_DB) + (STEP_DB if up else -STEP_DB)
        audible = wanted > LOWEST_DB - STEP_DB / 2
        gains[self.chosen] = linear(min(wanted, HIGHEST_DB)) if audible else 0.0

    def unity(self, key: str) -> None:
        """Set the gain to 0 dB, or the fader to its first value."""
        if (fader := self._fader) is not None:
            self._move(fader, fader.control.default[fader.index])
            return
        self.control.live.mixer.gains[self.chosen] = 1.0

    def mute(self, key: str) -> None:
        """Toggle mute."""
        muted = self.control.live.mixer.muted
        if self._fader is None:
            muted[self.chosen] = not muted[self.chosen]

    def solo(self, key: str) -> None:
        """Toggle solo."""
        soloed = self.control.live.mixer.soloed
        if self._fader is None:
            soloed[self.chosen] = not soloed[self.chosen]

    def bypass(self, key: str) -> None:
        """Toggle the bypass."""
        self.control.toggle_bypass()

    def model(self, key: str) -> None:
        """Open the list of models."""
        self.choice = Choice("model", weights.available, self.control.switch_model)

    def record(self, key: str) -> None:
        """Start or stop recording."""
        self.control.record(self.control.live.recorder is None)

    def device(self, key: str) -> None:
        """Open the list of devices."""
        control = self.control
        control.look_for_inputs()
        self.choice = Choice(
            "device", lambda: ("default", "demo", *control.inputs), control.switch_device
        )

    def save(self, key: str) -> None:
        """Save the scene."""
        self._say(self._save())

    def help(self, key: str) -> None:
        """Show the keys."""
        self.helping = True

    def quit(self, key: str) -> None:
        """End the stream."""
        self.ended = True


KEYS = (
    Key("1-9 ↑ ↓", ("up", "down", *"123456789"), "choose a source or control", Desk.pick),
    Key(
        "← → - +",
        ("left", "right", "-", "+", "="),
        "lower or raise its gain by 1 dB, or its value",
        Desk.gain,
    ),
    Key("0", ("0",), "set its gain to 0 dB, or its first value", Desk.unity),
    Key("m", ("m",), "mute it", Desk.mute),
    Key("s", ("s",), "solo it", Desk.solo),
    Key("b", ("b",), "bypass: hear the mixture", Desk.bypass),
    Key("c", ("c",), "change the model", Desk.model),
    Key("r", ("r",), "start or stop recording", Desk.record),
    Key("d", ("d",), "change the device", Desk.device),
    Key("w", ("w",), "save the scene", Desk.save),
    Key("?", ("?", "h"), "this help", Desk.help),
    Key("q", ("q",), "quit", Desk.quit),
)
