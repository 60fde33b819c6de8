"""Stems at another rate than the model's: they add up to the whole mixture, highest band too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import rtsep
from rtsep import weights
from rtsep.devices.open import DEMO
from rtsep.dsp.full_band import PERIOD_S
from rtsep.errors import SpecError
from rtsep.runtime.engine import StemOptions
from rtsep.runtime.pipeline import LoadedModel, aligned
from rtsep.spec import Float32
from tests.support import command, models
from tests.support.audio import gaussian as noise

RATE = 48_000
FIRST = np.array([1.0, 0.0], np.float32)
"""Gains of a model that takes everything for its first source."""


@pytest.fixture(scope="module")
def speech() -> Float32:
    """The demo's voice at `RATE`."""
    voice, rate = soundfile.read(DEMO.with_name("demo-speech.flac"), dtype="float32")
    return np.asarray(soxr.resample(voice, rate, RATE), np.float32)[: 4 * RATE]


def separated(
    loaded: LoadedModel, mixture: Float32, block: int = 1000, rate: int = RATE, declared: int = 1
) -> Float32:
    blocks = (mixture[first : first + block] for first in range(0, len(mixture), block))
    engine = loaded.engine(rate, declared)
    return np.concatenate([part.copy() for part in aligned(engine, blocks)])


def error_db(stems: Float32, mixture: Float32) -> float:
    """Level of what the sum of the stems lacks, relative to the mixture."""
    error = stems.sum(axis=1) - mixture
    return float(10 * np.log10(np.square(error).mean() / np.square(mixture).mean()))


def level_db(x: Float32, hz: float) -> float:
    """Level of a tone in the middle of a recording at `RATE`, in dB re full scale."""
    inner = x[RATE // 4 : -RATE // 4]
    turn = np.exp(-2j * np.pi * hz * np.arange(len(inner)) / RATE) * np.hanning(len(inner))
    return float(20 * np.log10(4 * np.abs((inner * turn).mean()) + 1e-12))


@pytest.mark.parametrize("name", weights.names())
def test_stems_of_every_bundle_add_up_to_the_mixture_at_48_khz(name: str) -> None:
    bundle = weights.find(name)
    channels = bundle.spec.channels
    mixture = 0.1 * noise(RATE, channels)
    assert error_db(separated(LoadedModel(bundle, channels), mixture), mixture) < -60


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 96_000])
def test_stems_add_up_at_other_rates(rate: int) -> None:
    mixture = 0.1 * noise(rate, 2)
    loaded = LoadedModel(models.bundle(), 2)
    assert error_db(separated(loaded, mixture, 777, rate), mixture) < -60


def test_without_full_band_the_highest_band_is_lost() -> None:
    mixture = 0.1 * noise(RATE, 1)
    loaded = LoadedModel(models.bundle(), 1, StemOptions(full_band=False))
    assert error_db(separated(loaded, mixture), mixture) > -3


def test_a_tone_above_the_models_band_comes_out_of_the_last_source(speech: Float32) -> None:
    time = np.arange(len(speech)) / RATE
    mixture = (speech + 0.05 * np.sin(2 * np.pi * 12_000 * time)).astype(np.float32)
    whole = StemOptions(floor_db=-120.0)  # by default some of the noise is left in the voice
    stems = separated(LoadedModel(weights.find("speech"), 1, whole), mixture[:, None])[:, :, 0]
    voice, rest = (level_db(stem, 12_000) for stem in stems.T)
    assert rest == pytest.approx(20 * np.log10(0.05), abs=0.1)
    assert voice < rest - 40


def test_sibilants_keep_what_they_have_above_the_models_band(speech: Float32) -> None:
    """Bursts of noise from 4 to 20 kHz that are speech below 8 kHz are speech above it, too."""
    loaded = LoadedModel(models.bundle(gains=FIRST), 1)
    burst = noise(RATE, 1)[:, 0] * (np.sin(np.arange(RATE) / RATE * 30) > 0.7)
    stems = separated(loaded, (0.1 * burst[:, None]).astype(np.float32))[:, :, 0]
    power = np.square(stems[RATE // 4 :]).sum(axis=0)
    assert power[0] > 20 * power[1]


def test_a_sibilant_is_speech_whenever_it_begins() -> None:
    """Also where the search for the steady power begins anew within it."""
    loaded = LoadedModel(models.bundle(gains=FIRST), 1)
    long = RATE // 5
    for begin in range(RATE // 2, RATE // 2 + round(PERIOD_S * RATE), long // 2):
        burst = np.zeros((begin + long + RATE // 10, 1), np.float32)
        burst[begin : begin + long] = 0.1 * noise(long)
        power = np.square(separated(loaded, burst)[:, :, 0]).sum(axis=0)
        assert power[0] > 20 * power[1], begin


@pytest.mark.parametrize("block", [1, 37, 480, 4800, 10_000])
def test_block_sizes_make_no_difference(block: int) -> None:
    mixture = 0.1 * noise(RATE // 5, 1)
    loaded = LoadedModel(models.bundle(), 1)
    usual = separated(loaded, mixture, 1000)
    np.testing.assert_array_equal(separated(loaded, mixture, block), usual)


@pytest.mark.parametrize("block", [128, 384])
def test_a_stream_of_less_latency_gives_the_same(speech: Float32, block: int) -> None:
    """Blocks of a device wait less for whole hops than blocks of any size do."""
    mixture = (speech + 0.02 * noise(len(speech))[:, 0])[: len(speech) // 384 * 384, None]
    loaded = LoadedModel(weights.find("chandna-speech"), 1)
    live, file = (separated(loaded, mixture, block, declared=n) for n in (block, 1))
    np.testing.assert_allclose(live, file, atol=1e-5)


def test_silence_stays_silent_and_nonfinite_samples_do_not_spread() -> None:
    mixture = np.zeros((RATE // 2, 1), np.float32)
    mixture[[1000, 1001, 1002]] = [[np.nan], [np.inf], [1e38]]
    stems = separated(LoadedModel(models.bundle(), 1), mixture)
    np.testing.assert_array_equal(stems, 0.0)


@pytest.mark.parametrize("rate", [16_000, RATE])
def test_the_floor_leaves_the_other_sources_at_its_level(rate: int) -> None:
    mixture = 0.1 * noise(rate // 2, 1)
    bundle = models.bundle(gains=FIRST)
    kept, removed = separated(
        LoadedModel(bundle, 1, StemOptions(floor_db=-20.0)), mixture, rate=rate
    )[:, :, 0].T
    plain = separated(LoadedModel(bundle, 1), mixture, rate=rate)[:, :, 0]
    np.testing.assert_allclose(removed, (plain[:, 1] + 0.1 * plain[:, 0]) / 1.1, atol=1e-6)
    np.testing.assert_allclose(kept, (plain[:, 0] + 0.1 * plain[:, 1]) / 1.1, atol=1e-6)


def test_the_floor_of_a_bundle_is_the_default() -> None:
    bundle = models.bundle(gains=FIRST, floor="-12")
    mixture = 0.1 * noise(8000, 1)
    default, none = (
        separated(LoadedModel(bundle, 1, options), mixture, rate=16_000)[:, 1, 0]
        for options in (StemOptions(), StemOptions(floor_db=-np.inf))
    )
    assert bundle.floor_db == -12.0
    assert not none.any()
    floor = 10 ** (-12 / 20)
    assert np.std(default) / np.std(mixture) == pytest.approx(floor / (1 + floor), rel=0.05)


@pytest.mark.parametrize("floor", [0.1, np.nan, np.inf])
def test_impossible_floors(floor: float) -> None:
    with pytest.raises(SpecError, match="at most 0 dB"):
        rtsep.load("speech", floor_db=floor)


def test_files(tmp_path: Path) -> None:
    """`rtsep separate` at 48 kHz: the stems add up, unless the flag says otherwise."""
    mixture = 0.1 * noise(RATE // 2, 1)
    soundfile.write(tmp_path / "talk.wav", mixture, RATE, "FLOAT")

    def run(*options: str) -> Float32:
        result = command.rtsep("separate", tmp_path / "talk.wav", "-o", tmp_path / "out", *options)
        assert result.exit_code == 0, result.output
        paths = [tmp_path / "out" / f"talk_{source}.wav" for source in ("speech", "noise")]
        stems = [soundfile.read(path, dtype="float32", always_2d=True)[0] for path in paths]
        return np.stack(stems, axis=1)

    assert error_db(run(), mixture) < -60
    assert error_db(run("--no-full-band"), mixture) > -3
    assert error_db(run("--floor", "-20"), mixture) < -60
