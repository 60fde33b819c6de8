"""`rtsep.live` as a program uses it: what is asked of a running stream is done, or refused."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtsep
from rtsep.devices import open as opening
from rtsep.devices.paced import Clock
from rtsep.errors import AudioFileError, BundleError, ControlError, DeviceError, GainError
from rtsep.files.readers import read_all
from rtsep.files.writers import Take
from rtsep.realtime.builder import Stream, StreamOptions
from rtsep.stream import LiveStream
from tests.support import models
from tests.support.audio import gaussian
from tests.support.patience import PATIENCE_S, until
from tests.support.stream import OTHER, SPEC

LIGHT = "chandna-speech"


class Plug(Clock):
    """A device at real-time pace that can be unplugged, and remembers the loudest sample."""

    def __init__(self) -> None:
        super().__init__(16000, 1, 1, 64, 256, gaussian(60 * 16000) / 9)
        self.plugged, self.loudest = True, 0.0

    @property
    def active(self) -> bool:
        return super().active and self.plugged

    def _run(self) -> None:
        block, out = (np.zeros((self.block, 1), np.float32) for _ in range(2))
        period, due = self.block / self.sample_rate, time.perf_counter()
        while not self._flags[0]:
            due += period
            time.sleep(max(due - time.perf_counter(), 0.0))
            if self.plugged:
                self.tick(block, out, due)
                self.loudest = max(self.loudest, float(np.abs(out).max()))

    def reopen(self) -> bool:
        if self.plugged:
            self.resume()
        return self.plugged


def plugged(device: Plug, **options: Any) -> LiveStream:
    """Return the stream that `rtsep.live` makes of a device it has opened."""
    return LiveStream(Stream(models.bundle(SPEC), device, StreamOptions(**options), tapped=True))


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: object) -> None:
        raise DeviceError("there is no sound card")

    monkeypatch.setattr(opening, "find", find)


def test_a_device_that_goes_is_waited_for() -> None:
    device = Plug()
    with plugged(device) as stream:
        until(lambda: stream.stats["separated_seconds"] > 0.1)
        device.plugged = False
        until(lambda: stream.notices)
        assert stream.running and "has gone; waiting for it" in stream.notices[0]
        device.plugged = True
        until(lambda: len(stream.notices) == 2)
        before = stream.stats["separated_seconds"]
        until(lambda: stream.stats["separated_seconds"] > before + 0.1)
        assert stream.running and stream.stats["device_losses"] == 1
        assert stream.stats["device_away_s"] > 0
    assert not stream.running


@pytest.mark.parametrize("options", [{"reconnect": False}, {"give_up_s": 0.3}])
def test_a_device_that_is_not_waited_for_ends_the_stream(options: dict[str, Any]) -> None:
    device = Plug()
    with plugged(device, **options) as stream:
        until(lambda: stream.stats["separated_seconds"] > 0.1)
        device.plugged = False
        stream.wait(PATIENCE_S)
        assert not stream.running
        with pytest.raises(ControlError, match="does not run"):
            stream.switch_model(LIGHT)


def test_nothing_louder_than_the_limit_is_played() -> None:
    device = Plug()
    with plugged(device, gains={"speech": 24}, limit_db=-20) as stream:
        until(lambda: stream.stats["separated_seconds"] > 0.5)
    assert 0.05 < device.loudest <= 0.1 + 1e-6


def test_the_model_is_switched_and_blocks_go_on_with_its_sources(tmp_path: Path) -> None:
    path = models.write(models.handmade(OTHER, name="other"), tmp_path / "other.onnx")
    device = Plug()
    seen: list[tuple[str, ...]] = []

    async def main() -> None:
        async for stems in stream.blocks(80):
            seen.append(tuple(stems))
            assert all(stem.shape[1] == 1 and len(stem) <= 80 for stem in stems.values())
            if len(seen) == 5:
                changed.append(asyncio.create_task(asyncio.to_thread(stream.switch_model, path)))
            if seen.count(("drums", "bass")) == 20:
                break

    changed: list[Any] = []
    with plugged(device, gains={"noise": -6}) as stream:
        assert (stream.model, stream.gains) == ("tiny", {"noise": -6.0})
        asyncio.run(main())
        assert (stream.model, stream.sources) == ("other", ("drums", "bass"))
        assert stream.gains == {"drums": 0.0}  # none of one name: the first is heard
        stream.gains = {"bass": -3}
        assert stream.gains == {"bass": -3.0}
        with pytest.raises(BundleError, match="nobody"):
            stream.switch_model("nobody")
        assert stream.running and stream.model == "other"
    assert seen == sorted(seen, key=lambda names: names == ("drums", "bass"))
    assert stream.stats["unread_samples"] == 0


def test_gains_that_change_while_a_model_is_on_its_way_are_its_own(tmp_path: Path) -> None:
    twin = models.write(models.handmade(SPEC, name="twin"), tmp_path / "twin.onnx")
    with plugged(Plug(), gains={"speech": -6}) as stream:
        asked = threading.Thread(target=stream.switch_model, args=(twin,))
        asked.start()
        until(lambda: stream.model == "twin")
        stream.gains = {"noise": -3}
        asked.join()
        assert (stream.model, stream.gains) == ("twin", {"noise": -3.0})


def test_recordings_begin_and_end_when_asked(tmp_path: Path) -> None:
    with plugged(Plug(), record=tmp_path / "first") as stream:
        assert stream.recording == tmp_path / "first"
        assert stream.start_recording() == tmp_path / "first"  # it does already
        until(lambda: stream.stats["separated_seconds"] > 0.2)
        paths = stream.stop_recording()
        assert stream.recording is None and stream.stop_recording() == []
        assert [path.name for path in paths] == ["mixture.wav", "speech.wav", "noise.wav"]
        assert stream.start_recording() == tmp_path / "first" / "2"
        stream.stop_recording()
        assert stream.start_recording(tmp_path / "other") == tmp_path / "other"
        stream.stop_recording()
        (tmp_path / "file").touch()
        with pytest.raises(AudioFileError, match="cannot write"):
            stream.start_recording(tmp_path / "file" / "below")
        stream.start_recording(tmp_path / "last")
        until(lambda: stream.recording is not None)
        stream.wait(0.1)
    mixture, speech = (read_all(path)[0] for path in paths[:2])
    assert len(mixture) == len(speech) > 0.1 * 16000
    if not stream.stats["input_overruns"]:
        np.testing.assert_allclose(speech, models.GAINS[0] * mixture, atol=1e-5)
    assert len(list((tmp_path / "last").glob("*.wav"))) == 3, "the end completes it"
    with pytest.raises(ControlError, match="does not run"):
        stream.start_recording()


def test_a_recording_that_fails_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise AudioFileError("cannot write: no space left")

    monkeypatch.setattr(Take, "write", full)
    with plugged(Plug(), record=tmp_path / "a") as stream:
        until(lambda: stream.stats["not_recorded_samples"])
        with pytest.raises(AudioFileError, match="no space left"):
            stream.stop_recording()
    with (
        pytest.raises(AudioFileError, match="no space left"),
        plugged(Plug(), record=tmp_path / "b") as stream,
    ):
        until(lambda: stream.stats["not_recorded_samples"])


@pytest.mark.usefixtures("no_card")
def test_the_demo_with_all_options_and_another_device(tmp_path: Path) -> None:
    options = {"on_late": "mute", "limit_db": -1.0, "give_up_s": 9.0, "realtime": False}
    with rtsep.live("demo", LIGHT, record=tmp_path / "r", reconnect=True, **options) as stream:
        assert stream.channels == 1 and stream.sample_rate == 16000
        stream.wait(0.3)
        with pytest.raises(DeviceError, match="no sound card"):
            stream.switch_device("no such device")
        stream.switch_device("demo")
        assert stream.recording == tmp_path / "r" / "2"
        stream.wait(0.3)
        assert stream.running and stream.stats["separated_seconds"] > 0.3
    assert len(list(tmp_path.rglob("mixture.wav"))) == 2


def test_what_cannot_be_is_refused_before_it_starts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AudioFileError, match="cannot write"):
        rtsep.live("demo", LIGHT, record=tmp_path / "file" / "below")
    stream = plugged(Plug())
    for ask in (lambda: stream.switch_device("demo"), stream.start_recording):
        with pytest.raises(ControlError, match="does not run"):
            ask()
    with stream:
        with pytest.raises(GainError, match="drums"):
            stream.gains = {"drums": 0}
        with pytest.raises(ControlError, match="can't be changed here"):
            stream.switch_device("demo")
