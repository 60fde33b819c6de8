"""The picture shows what sounds, where and when it sounds, for any length."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from matplotlib.image import imread

from rtsep.files import spectrogram
from rtsep.files.spectrogram import spectrograms

RATE = 16000


def tone(hz, length, level=1.0):
    return (level * np.sin(2 * np.pi * hz * np.arange(length) / RATE)).astype("f4")


def row_of(hz):
    return spectrogram._mel(hz) / spectrogram._mel(RATE / 2) * (spectrogram._ROWS - 1)


@pytest.mark.parametrize("hz", [100, 440, 1000, 3000, 7000])
@pytest.mark.parametrize("length", [RATE, 100 * RATE])
def test_a_full_scale_tone_is_0_db_in_its_row(hz, length):
    levels = spectrogram._levels_db(tone(hz, length), RATE, length)
    middle = levels[:, levels.shape[1] // 2]
    assert abs(int(middle.argmax()) - row_of(hz)) <= 3
    assert -1.5 < middle.max() < 0.1  # a tone between two bins loses up to 1.42 dB (Hann)
    far = np.abs(np.arange(spectrogram._ROWS) - row_of(hz)) > 25
    assert middle[far].max() < -60


def test_a_click_is_in_its_column():
    x = np.zeros((4 * RATE, 2), "f4")
    x[RATE] = 1.0
    levels = spectrogram._levels_db(x, RATE, len(x))
    loud = np.flatnonzero(levels.max(axis=0) > -140) / levels.shape[1] * 4
    assert loud.min() > 0.95 and loud.max() < 1.05


def test_channels_of_opposite_sign_do_not_cancel():
    x = tone(440, RATE)
    both = spectrogram._levels_db(np.stack([x, -x], 1), RATE, RATE)
    np.testing.assert_allclose(both, spectrogram._levels_db(x, RATE, RATE), atol=1e-3)


def test_silence_after_the_end():
    levels = spectrogram._levels_db(tone(440, RATE), RATE, 2 * RATE)
    assert levels[:, -10:].max() < -139


@pytest.mark.parametrize("length", [1, 2, 1000, 5 * RATE])
@pytest.mark.parametrize("count", [1, 5])
def test_any_length_gives_a_png(tmp_path, length, count):
    path = tmp_path / "new" / "a.png"
    spectrograms(path, {f"s{i}": tone(440, length) for i in range(count)}, RATE, "title")
    assert imread(path).shape[0] > imread(path).shape[1] * 0.1
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_an_hour_costs_as_much_as_a_minute():
    hour = np.broadcast_to(np.float32(0.1), (3600 * RATE, 2))  # no memory behind it
    most = []
    for sound in (hour[: 60 * RATE], hour):
        tracemalloc.start()
        try:
            spectrogram._levels_db(sound, RATE, len(sound))
            most.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert most[1] < 1.5 * most[0]


def test_samples_that_are_not_finite_are_drawn_as_silence(tmp_path):
    x = tone(440, RATE)
    x[100] = np.nan
    assert np.isfinite(spectrogram._levels_db(x, RATE, RATE)).all()
    spectrograms(tmp_path / "a.png", {"x": x * 0}, RATE, "silent")


def test_nothing_to_draw(tmp_path):
    for signals in ({}, {"a": np.zeros(0, "f4")}):
        with pytest.raises(ValueError, match="each signal must have samples"):
            spectrograms(tmp_path / "a.png", signals, RATE, "title")


def test_a_failure_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        spectrograms(path, {"a": tone(440, 999)}, RATE, "title")
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_matplotlib_is_loaded_only_to_draw():
    program = "import sys, rtsep.files.spectrogram; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
