"""A running stream changes its model, recording and device when asked, or says why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rtsep.devices.device import Device
from rtsep.devices.paced import Clock
from rtsep.dsp.mixer import level_db, linear
from rtsep.errors import ControlError, DeviceError
from rtsep.files.readers import read_all
from rtsep.realtime.control import Control
from rtsep.realtime.recorder import Takes
from rtsep.realtime.worker import StreamWorker
from rtsep.runtime.pipeline import LoadedModel
from rtsep.spec import Spec
from tests.support import models
from tests.support.audio import gaussian as noise
from tests.support.patience import PATIENCE_S, until
from tests.support.stream import OTHER, SPEC

RATE, BLOCK = 16000, 64


def clock(rate: int = RATE, channels: int = 1) -> Clock:
    return Clock(rate, channels, 2, BLOCK, 4 * BLOCK, noise(60 * rate, channels) / 9)


class Rig:
    """A stream on the system's clock, its control, and what it said."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.devices: dict[str, Callable[[], Device]] = {}
        self.loaded = LoadedModel(models.bundle(SPEC), 1)
        engine = self.loaded.engine(RATE, BLOCK)
        self.live = StreamWorker(clock(), engine, np.array([1, 0], np.float32))
        self.takes = Takes(folder)
        self.control = Control(
            self.live, self.loaded, self.takes, self.said.append, self.open, lambda: ["a", "b"]
        )

    def open(self, name: str) -> Device:
        if name not in self.devices:
            raise DeviceError(f"there is no {name}")
        return self.devices[name]()

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline and self.control.working, self.said
            time.sleep(0.01)

    def hear(self, word: str) -> str:
        """Wait until a sentence with a word was said."""
        self.wait(lambda: any(word in sentence for sentence in self.said))
        return next(sentence for sentence in self.said if word in sentence)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "takes")
    rig.live.start()
    rig.control.start()
    yield rig
    rig.control.close()
    rig.live.stop()
    assert rig.live.error is None and rig.control.error is None


def aligned(folder: Path, gains: dict[str, float]) -> int:
    """Check that each stem is the mixture by its gain; return the length."""
    mixture, _ = read_all(folder / "mixture.wav")
    assert sorted(p.stem for p in folder.glob("*.wav")) == sorted(["mixture", *gains])
    for name, gain in gains.items():
        stem, _ = read_all(folder / f"{name}.wav")
        np.testing.assert_allclose(stem, gain * mixture, atol=2e-5)
    return len(mixture)


def other(tmp_path: Path) -> str:
    return str(models.write(models.handmade(OTHER, name="other"), tmp_path / "other.onnx"))


def test_a_model_takes_over_and_its_recording_goes_on_in_a_folder(rig: Rig, tmp_path: Path) -> None:
    rig.control.record(True)
    rig.hear("recording to")
    rig.control.switch_model(other(tmp_path))
    rig.hear("the model is other now")
    rig.wait(lambda: len(rig.takes.recorders) == 2 and not rig.control.busy)
    assert rig.live.engine.spec == OTHER and rig.control.loaded.name == "other"
    time.sleep(0.3)
    rig.control.record(False)
    rig.hear("recorded")
    rig.wait(lambda: rig.live.recorder is None)
    folder = tmp_path / "takes"
    if not rig.live.drops:
        assert aligned(folder, {"speech": 0.75, "noise": 0.25}) > 0
        assert aligned(folder / "2", {"drums": 0.75, "bass": 0.25}) > 0.1 * RATE


def test_what_cannot_be_is_said_and_nothing_changes(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = rig.live.chain, rig.live.device
    rig.control.switch_model("no such model")
    assert "neither a file nor a shipped model" in rig.hear("no such model")
    rig.control.switch_device("no such card")
    rig.hear("there is no no such card")
    lookahead = rig.live.device.input.capacity // 64
    late = Spec(16000, 1, "stft", "hann", 256, 64, 1, lookahead, ("a", "b"))
    path = models.write(models.handmade(late), tmp_path / "late.onnx")
    with pytest.raises(ControlError, match="not kept for a latency"):
        rig.control.switch_model(str(path)).result()
    monkeypatch.setattr(LoadedModel, "load", lambda self: 2.0)
    rig.control.switch_model(other(tmp_path))
    assert "other is too slow" in rig.hear("too slow")
    (tmp_path / "takes").touch()
    rig.control.record(True)
    rig.hear("cannot write")
    assert (rig.live.chain, rig.live.device) == before and rig.live.running
    assert rig.control.working and not rig.control.busy


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 1), (16000, 2)])
def test_another_device_goes_on(rig: Rig, tmp_path: Path, rate: int, channels: int) -> None:
    rig.devices["another"] = lambda: clock(rate, channels)
    rig.control.record(True)
    rig.hear("recording to")
    rig.live.mixer.muted[1], rig.live.mixer.gains[0] = True, 0.5
    rig.control.switch_device("another")
    rig.hear("another: ")
    device = rig.live.device
    assert (device.sample_rate, device.input.width) == (rate, channels)
    assert rig.live.engine.channels == channels
    assert rig.live.mixer.gains[0] == 0.5 and rig.live.mixer.muted[1]
    rig.wait(lambda: rig.live.processed > rate // 5)
    rig.control.record(False)
    rig.wait(lambda: sum("recorded" in sentence for sentence in rig.said) == 2)
    gains = {"speech": 0.75, "noise": 0.25}
    if rate == 16000 and not rig.live.drops:
        assert aligned(tmp_path / "takes" / "2", gains) > 0


def test_the_inputs_are_looked_for(rig: Rig) -> None:
    rig.control.look_for_inputs()
    rig.wait(lambda: rig.control.inputs == ["a", "b"])


def test_the_bypass_is_also_that_of_a_model_on_its_way(rig: Rig, tmp_path: Path) -> None:
    rig.control.switch_model(other(tmp_path))
    rig.wait(lambda: rig.live.switching)
    rig.control.toggle_bypass()
    rig.hear("the model is other now")
    assert rig.live.mixer.bypass


def test_a_fault_of_the_worker_ends_the_control_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.live._state = None  # type: ignore[assignment, method-assign]
    rig.control.start()
    rig.live.start()
    until(lambda: not rig.control.working)
    rig.control.close()
    rig.live.stop()
    assert isinstance(rig.live.error, TypeError)


def test_levels() -> None:
    assert level_db(0.0) == -np.inf and level_db(1.0) == 0.0
    assert level_db(float(linear(-12.0))) == pytest.approx(-12.0, abs=1e-5)
