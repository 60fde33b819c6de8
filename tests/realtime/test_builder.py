"""A stream is put together from its parts, or refused; its options reach what they are for."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.soak import waiting
from rtsep.cli.report import Report
from rtsep.cli.run import run
from rtsep.cli.ui import ui
from rtsep.devices.fake import Away, FakeDevice, Hold, Rate
from rtsep.devices.open import DeviceOptions
from rtsep.dsp.mixer import HIGHEST_GAIN_DB
from rtsep.errors import AudioFileError, BundleError, GainError
from rtsep.files.readers import read_all
from rtsep.realtime.builder import (
    MOST_NOTICES,
    Notices,
    Stream,
    StreamOptions,
    linear_gains,
)
from rtsep.spec import Float32, Spec
from tests.support import models
from tests.support.stream import SPEC, Hand

RATE, BLOCK, LATENCY = 48_000, 128, 480


def tone(start: int, block: Float32) -> None:
    times = (start + np.arange(len(block))) / RATE
    block[:] = 0.5 * np.sin(2 * np.pi * 375.0 * times)[:, None]


class Heard:
    """A made-up device that is driven by hand, its stream, and what was played."""

    def __init__(self, *script: Any, seconds: float = 2.0, **options: Any) -> None:
        self.parts: list[Float32] = []
        device = FakeDevice(
            RATE, 1, 1, BLOCK, 4 * BLOCK, tone, lambda _, x: self.parts.append(x.copy()),
            script=script,
        )  # fmt: skip
        self.stream = Stream(waiting(LATENCY, 1.0), device, StreamOptions(**options))
        device.start()
        device.run(self.stream.worker.turn, seconds)

    @property
    def played(self) -> Float32:
        return np.concatenate(self.parts)[LATENCY + 4 * BLOCK :, 0]


def test_every_option_of_a_stream_is_one_of_the_command_lines() -> None:
    """An option that is declared once there and once here is complete."""
    for command in (run, ui):
        names = {option.name for option in command.params}
        assert {field.name for field in fields(DeviceOptions)} <= names
        assert {field.name for field in fields(StreamOptions)} - {"gains"} <= names


def test_the_options_of_the_worker() -> None:
    assert np.abs(Heard().played).max() == pytest.approx(0.5, abs=1e-3)
    limited = Heard(limit_db=-12.0).played
    assert np.abs(limited).max() <= 10 ** (-12 / 20) + 1e-6
    hold = Hold(0.5, 0.4)
    for on_late, silent in (("dry", False), ("mute", True)):
        late = Heard(hold, on_late=on_late)
        assert late.stream.figures()["deadline_misses"] == 1
        middle = late.played[round(0.6 * RATE) : round(0.8 * RATE)]
        assert bool(np.abs(middle).max() < 1e-6) is silent


@pytest.mark.parametrize(("block", "length"), [(16, ""), (8, ""), (24, "1.5"), (32, "2.0")])
def test_what_blocks_cost_that_do_not_divide_the_hop(block: int, length: str) -> None:
    """That is the difference of the latency, with one block of headroom, to that of the hop."""
    stream = Stream(models.bundle(SPEC), Hand(16_000, 1, 1, block, block))
    cost = f"blocks of {block} samples ({length} ms) do not divide the model's hop of 1.0 ms: that "
    assert Report(stream).blocks_line() == (length and cost + "costs 1.0 ms")
    best = Stream(models.bundle(SPEC), Hand(16_000, 1, 1, 16, 16))
    assert stream.latency_ms - best.latency_ms == (1.0 if length else 0.0)


def test_a_device_that_comes_back_is_counted_and_the_recording_goes_on(tmp_path: Path) -> None:
    heard = Heard(Away(0.5, 1.0), Rate(1.0, 16_000), record=tmp_path)
    stream = heard.stream
    device: Any = stream.worker.device
    assert not device.active
    assert stream.comeback.wait(lambda: False)
    device = stream.worker.device
    device.run(stream.worker.turn, 1.0)
    figures = stream.figures()
    assert (figures["device_losses"], device.sample_rate) == (1, 16_000)
    assert "has gone" in stream.notices.all()[0]
    assert stream.notices.last()[1] == stream.notices.all()[-1]
    assert "16000 Hz" in stream.notices.last()[1]
    stream.stop()
    assert not stream.problems and figures["not_recorded_samples"] == 0
    assert read_all(tmp_path / "mixture.wav")[1] == RATE
    mixture, rate = read_all(tmp_path / "2" / "mixture.wav")
    assert rate == 16_000 and len(mixture) > 0.8 * rate


def test_what_cannot_be_built_is_refused_and_its_device_closed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lookahead = Hand(16000, 1, 1, 64, 64).input.capacity // 64
    late = models.bundle(Spec(16000, 1, "stft", "hann", 256, 64, 1, lookahead, ("a", "b")))
    for bundle, options, error, reason in (
        (models.bundle(SPEC), {"gains": {"drums": 0}}, GainError, "there are: speech, noise"),
        (models.bundle(SPEC), {"record": tmp_path / "file" / "r"}, AudioFileError, "cannot write"),
        (late, {}, BundleError, "tiny: "),
    ):
        device = Hand(16000, 1, 1, 64, 64)
        closed: list[int] = []
        device.stop = lambda closed=closed: closed.append(1)  # type: ignore[method-assign]
        with pytest.raises(error, match=reason):
            Stream(bundle, device, StreamOptions(**options))
        assert closed


def test_gains() -> None:
    sources = ("speech", "noise")
    for gains_db, wanted in (
        (None, [1, 0]),
        ({"noise": 0.0}, [0, 1]),
        ({"speech": -20.0}, [0.1, 0]),
        ({"speech": 0.0, "noise": -np.inf}, [1, 0]),
    ):
        np.testing.assert_allclose(linear_gains(sources, gains_db), wanted, rtol=1e-6)
    for level_db in (HIGHEST_GAIN_DB + 0.1, np.nan, np.inf):
        with pytest.raises(GainError, match=f"at most {HIGHEST_GAIN_DB:.0f} dB"):
            linear_gains(sources, {"speech": level_db})


def test_notices_never_pile_up() -> None:
    notices = Notices()
    assert notices.last() == (0.0, "") and notices.all() == []
    for number in range(3 * MOST_NOTICES):
        notices(str(number))
    assert len(notices.all()) == MOST_NOTICES
    assert notices.last()[1] == str(3 * MOST_NOTICES - 1)
