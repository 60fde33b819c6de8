"""`rtsep eval` as a user runs it: right figures, both layouts, and a sentence for what is wrong."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rtsep.errors import EvaluationError
from rtsep.evaluate import score
from rtsep.evaluate.evaluation import Evaluation
from rtsep.evaluate.folder import matched
from rtsep.evaluate.metrics import METRICS, Metric, si_sdr_db, snr_db
from rtsep.evaluate.oracle import MASKS
from rtsep.spec import Spec
from tests.support import models
from tests.support.command import refused, rtsep
from tests.support.paths import DEMO

RATE = 16000
BAND = ("drums", "bass")
FLAT = "{0}_{1}.flac"
NESTED = "{0}/{1}.wav"


def sounds(seed: int, n: int = RATE, channels: int = 1, rate: int = RATE) -> dict[str, Any]:
    """A mixture of two sources: noise of the lower and of the middle frequencies."""
    spectra = np.fft.rfft(np.random.default_rng(seed).standard_normal((2, n, channels)), axis=1)
    hz = np.fft.rfftfreq(n, 1 / rate)
    spectra[0, (hz < 500) | (hz > 4000)] = 0
    spectra[1, (hz < 100) | (hz > 900)] = 0
    drums, bass = 0.1 * np.fft.irfft(spectra, n, axis=1)
    return {"mixture": drums + bass, "drums": drums, "bass": bass}


def put(
    folder: Path, item: str, parts: dict[str, Any], layout: str = FLAT, rate: int = RATE
) -> None:
    for name, samples in parts.items():
        path = folder / layout.format(item, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype="PCM_24")


def band_model(folder: Path, sources: tuple[str, ...] = BAND, channels: int = 1) -> Path:
    """A bundle whose stems are the mixture, three quarters and a quarter of it."""
    spec = Spec(RATE, channels, "waveform", "rectangular", 64, 64, 1, 1, sources)
    return models.write(models.handmade(spec), folder / "band.onnx")


def scored(*arguments: object, folder: Path, exit_code: int = 0) -> Any:
    """What `rtsep eval` writes as JSON."""
    path = folder / "scores.json"
    result = rtsep("eval", *arguments, "--json", path)
    assert result.exit_code == exit_code, result.output
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("layout", "channels", "rate"), [(FLAT, 1, RATE), (NESTED, 2, RATE), (NESTED, 1, 44100)]
)
def test_figures_are_those_of_the_estimates(
    tmp_path: Path, layout: str, channels: int, rate: int
) -> None:
    data = tmp_path / "data"
    parts = [sounds(seed, rate, channels, rate) for seed in range(3)]
    for index, part in enumerate(parts):
        put(data, f"{index:03}", part, layout, rate)
    found = scored("--data", data, "-m", band_model(tmp_path), folder=tmp_path)
    assert (found["mixtures"], found["failures"], found["unscored_sources"]) == (3, [], 0)
    assert [row["item"] for row in found["rows"]] == [f"{n:03}" for n in range(3) for _ in BAND]
    for source, gain in zip(BAND, models.GAINS, strict=True):
        summary = found["summary"][source]
        # The estimate is the mixture, in time and at its rate: scale-invariant, nothing changes.
        assert summary["si_sdr_db"]["improvement"] == pytest.approx(0, abs=0.01)
        before = [snr_db(part["mixture"], part[source]) for part in parts]
        after = [snr_db(gain * part["mixture"], part[source]) for part in parts]
        assert summary["snr_db"]["mean"] == pytest.approx(np.mean(after), abs=0.01)
        assert summary["snr_db"]["median"] == pytest.approx(np.median(after), abs=0.01)
        assert summary["snr_db"]["mixture"] == pytest.approx(np.mean(before), abs=0.01)
        assert summary["snr_db"]["improvement"] == pytest.approx(
            np.mean(after) - np.mean(before), abs=0.01
        )
        # BSS Eval's SDR is that of the frames, here one of a second.
        assert summary["bss_sdr_db"]["mean"] == pytest.approx(np.mean(after), abs=0.01)
        assert summary["bss_sar_db"]["mixture"] is None
        assert "pesq_wb" not in summary and "stoi" not in summary
    total = np.mean([found["summary"][source]["snr_db"]["mean"] for source in BAND])
    assert found["headline"].startswith(f"SDR of whole tracks {total:.2f} dB (mixture ")


def test_the_estimates_are_those_of_separate(tmp_path: Path) -> None:
    speech, rate = soundfile.read(DEMO)
    speech = speech[: 2 * rate]
    noise = 0.05 * np.random.default_rng(0).standard_normal(len(speech))
    put(tmp_path / "data", "000", {"mixture": speech + noise, "speech": speech}, rate=rate)
    found = scored("--data", tmp_path / "data", folder=tmp_path)
    mixture = tmp_path / "data" / "000_mixture.flac"
    assert rtsep("separate", mixture, "-o", tmp_path).exit_code == 0
    # Of the noise there is no file: it is the mixture without the speech.
    for source, reference in (("speech", speech), ("noise", noise)):
        stem, _ = soundfile.read(tmp_path / f"000_mixture_{source}.wav")
        expected = si_sdr_db(stem, reference)
        assert found["summary"][source]["si_sdr_db"]["mean"] == pytest.approx(expected, abs=0.01)
    assert {"stoi", "estoi"} <= found["summary"]["speech"].keys()
    assert found["headline"].startswith("SI-SDRi ") and "ESTOI" in found["headline"]


def test_table_csv_and_plot(tmp_path: Path) -> None:
    put(tmp_path / "data", "000", sounds(0))
    put(tmp_path / "data", "001", sounds(1))
    lines, plot = tmp_path / "a.csv", tmp_path / "a.png"
    model = band_model(tmp_path)
    result = rtsep("eval", "--data", tmp_path / "data", "-m", model, "--csv", lines, "--plot", plot)
    assert result.exit_code == 0 and not result.stderr
    for text in (*BAND, "SI-SDR dB", "BSS SAR dB", "(+0.00)", "tiny, 2 mixtures: SDR"):
        assert text in result.stdout
    assert "PESQ" not in result.stdout
    evaluation = Evaluation(tmp_path / "data", str(model))
    for item in evaluation.items:
        evaluation.add(item)
    rows = list(csv.DictReader(lines.read_text().splitlines()))
    assert len(rows) == 4
    for row, expected in zip(rows, evaluation.rows, strict=True):
        assert (row["item"], row["source"]) == (expected.item, expected.source)
        assert float(row["snr_db"]) == pytest.approx(expected.estimate["snr_db"], rel=1e-4)
        assert row["si_sar_db_mixture"] == ""
    assert plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not list(tmp_path.glob(".*.part"))


def test_oracle_masks_are_bounds(tmp_path: Path) -> None:
    put(tmp_path / "data", "000", sounds(0, channels=2))
    improvement = {}
    for kind in MASKS:
        found = scored("--data", tmp_path / "data", "-m", f"oracle:{kind}", folder=tmp_path)
        assert found["model"] == f"oracle:{kind}"
        snr = [found["summary"][source]["snr_db"]["improvement"] for source in BAND]
        improvement[kind] = np.mean(snr)
    # Of all real masks within 0 and 1, this is the one with the least error in every cell.
    assert max(improvement, key=improvement.__getitem__) == "psm"
    assert min(improvement.values()) > 5


def test_the_window_of_an_oracle(tmp_path: Path) -> None:
    put(tmp_path / "data", "000", sounds(0))
    figures = [
        scored("--data", tmp_path / "data", "-m", name, folder=tmp_path)["headline"]
        for name in ("oracle:irm", "oracle:irm:512", "oracle:irm:64")
    ]
    assert figures[0] == figures[1] != figures[2]
    assert "there are: oracle:ibm" in refused(
        "eval", "--data", tmp_path / "data", "-m", "oracle:all"
    )
    for window in ("0", "-16", "x", "4036", "131072", "512:3"):
        sentence = refused("eval", "--data", tmp_path / "data", "-m", f"oracle:irm:{window}")
        assert "must be one of 16, 32, " in sentence


def test_an_oracle_of_speech_alone_takes_the_rest_as_noise(tmp_path: Path) -> None:
    parts = sounds(0)
    put(tmp_path / "data", "000", {"mixture": parts["mixture"], "hum": parts["bass"]})
    found = scored("--data", tmp_path / "data", "-m", "oracle:irm", folder=tmp_path)
    assert list(found["summary"]) == ["hum", "noise"]
    put(tmp_path / "data", "000", {"noise": parts["drums"]})
    again = scored("--data", tmp_path / "data", "-m", "oracle:irm", folder=tmp_path)
    after, before = (f["summary"]["noise"]["snr_db"]["mean"] for f in (again, found))
    assert after == pytest.approx(before, abs=0.01)


@given(order=st.permutations([0, 1, 2]))
def test_interchangeable_sources_are_scored_in_their_best_order(order: list[int]) -> None:
    references = np.random.default_rng(0).standard_normal((4, 200, 1)).astype(np.float32)
    estimates = 0.5 * references
    estimates[[0, 1, 3]] = estimates[[[0, 1, 3][i] for i in order]]
    names = ("speaker1", "speaker2", "noise", "speaker3")
    restored = estimates[score.best_order(estimates, references, names)]
    np.testing.assert_array_equal(restored, 0.5 * references)
    others = ("a", "b", "noise", "c")
    assert score.best_order(estimates, references, others) == [0, 1, 2, 3]


def test_silent_sources_are_left_out_and_counted(tmp_path: Path) -> None:
    data, model = tmp_path / "data", band_model(tmp_path, ("drums", "bass"))
    put(data, "000", sounds(0))
    put(data, "001", {**sounds(1), "bass": np.zeros(RATE)})
    found = scored("--data", data, "-m", model, folder=tmp_path)
    # With a single source there is nothing to separate: neither counts.
    assert found["unscored_sources"] == 2
    assert [row["item"] for row in found["rows"]] == ["000", "000"]
    assert "2 sources left out" in rtsep("eval", "--data", data, "-m", model).stdout
    parts = sounds(2)
    put(data, "000", {**parts, "other": 1e-5 * parts["bass"]})
    put(data, "001", {**parts, "other": parts["bass"]})
    found = scored("--data", data, "-m", "oracle:irm", folder=tmp_path)
    assert found["unscored_sources"] == 1
    assert [row["source"] for row in found["rows"]] == ["bass", "drums", "bass", "drums", "other"]
    (data / "000_mixture.flac").unlink()
    put(data, "001", {name: np.zeros(RATE) for name in ("mixture", *BAND, "other")})
    assert "nothing in" in refused("eval", "--data", data, "-m", "oracle:irm")


def test_bad_mixtures_are_named_and_the_others_scored(tmp_path: Path) -> None:
    data, model = tmp_path / "data", band_model(tmp_path)
    for item in ("good", "cut", "long", "rate", "stereo", "lacking", "text"):
        put(data, item, sounds(0))
    put(data, "long", {"bass": sounds(0, RATE + 1)["bass"]})
    put(data, "rate", {"bass": sounds(0)["bass"]}, rate=8000)
    put(data, "stereo", {"bass": sounds(0, channels=2)["bass"]})
    cut = data / "cut_mixture.flac"
    cut.write_bytes(cut.read_bytes()[:9000])
    (data / "text_drums.flac").write_text("no sound " * 99)
    (data / "lacking_drums.flac").unlink()
    path = tmp_path / "scores.json"
    result = rtsep("eval", "--data", data, "-m", model, "--json", path)
    assert result.exit_code == 2
    *sentences, last = result.stderr.splitlines()
    assert last == "rtsep: 6 of 7 mixtures were left out"
    for name in ("cut_mixture", "lacking_mixture", "long_bass", "rate_bass", "stereo_bass"):
        assert sum(f"{data / name}.flac " in sentence for sentence in sentences) == 1, name
    assert "no drums beside it" in result.stderr
    assert "has 16001 samples of 1 channels at 16000 Hz, its mixture has 16000" in result.stderr
    found = json.loads(path.read_text())
    assert (found["mixtures"], len(found["failures"])) == (1, 6)
    assert {row["item"] for row in found["rows"]} == {"good"}
    for stem in data.glob("good_*"):
        stem.unlink()
    result = rtsep("eval", "--data", data, "-m", model)
    assert result.exit_code == 2 and f"nothing in {data} could be scored" in result.stderr


def test_folders_that_are_no_data(tmp_path: Path) -> None:
    assert "is not a folder" in refused("eval", "--data", tmp_path / "missing")
    assert "neither NNN_mixture.flac" in refused("eval", "--data", tmp_path)
    put(tmp_path, "000", {"mixture": sounds(0)["mixture"]})
    assert "none of their sources" in refused("eval", "--data", tmp_path)


@pytest.mark.parametrize("sources", [("speech", "noise"), ("drums", "x")])
def test_a_model_of_other_sources(tmp_path: Path, sources: tuple[str, ...]) -> None:
    put(tmp_path / "data", "000", sounds(0))
    sentence = refused("eval", "--data", tmp_path / "data", "-m", band_model(tmp_path, sources))
    assert ", ".join(sources) in sentence and "bass, drums" in sentence


def test_one_source_at_most_may_be_the_rest() -> None:
    matched(("a", "b"), ("c", "b", "a"), "m", Path("x"))
    for stems in (("a",), ("a", "b", "d")):
        with pytest.raises(EvaluationError, match="m separates c, b, a, but x has a"):
            matched(stems, ("c", "b", "a"), "m", Path("x"))


def test_a_joint_model_takes_its_channels_only(tmp_path: Path) -> None:
    put(tmp_path / "data", "one", sounds(0))
    put(tmp_path / "data", "two", sounds(0, channels=2))
    model = band_model(tmp_path, channels=2)
    result = rtsep("eval", "--data", tmp_path / "data", "-m", model)
    assert result.exit_code == 2 and "2 channels jointly, not 1" in result.stderr
    assert "tiny, 1 mixtures" in result.stdout


def test_missing_packages_are_said_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = sounds(0)
    put(tmp_path / "data", "000", {"mixture": parts["mixture"], "speech": parts["drums"]})
    find = importlib.util.find_spec
    absent = {"pesq", "pystoi"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else find(name)
    )
    result = rtsep("eval", "--data", tmp_path / "data", "-m", "oracle:irm")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "rtsep: without PESQ-WB, PESQ-NB: the package pesq is missing (pip install pesq)",
        "rtsep: without STOI, ESTOI: the package pystoi is missing (pip install pystoi)",
    ]
    assert "SI-SDR dB" in result.stdout and "PESQ" not in result.stdout


def test_a_metric_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "twice": Metric("Twice dB", lambda of: 2 * snr_db(*of.pair)),
        "absent": Metric("Absent", lambda of: 1.0, "no_such_package"),
        "voice": Metric("Voice", lambda of: 1.0, of_speech=True),
        "added": Metric("Added", lambda of: 1.0, of_artefacts=True),
    }
    for name, metric in rows.items():
        monkeypatch.setitem(METRICS, name, metric)
    put(tmp_path / "data", "000", sounds(0))
    result = rtsep("eval", "--data", tmp_path / "data", "-m", "oracle:irm")
    assert result.exit_code == 0
    assert "Twice dB" in result.stdout and "Voice" not in result.stdout
    assert "without Absent: the package no_such_package is missing" in result.stderr
    for row in scored("-m", "oracle:irm", "--data", tmp_path / "data", folder=tmp_path)["rows"]:
        assert row["estimate"]["twice"] == pytest.approx(2 * row["estimate"]["snr_db"], abs=1e-5)
        assert row["mixture"]["twice"] is not None and row["mixture"]["added"] is None


def test_targets_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "data", "000", sounds(0))
    monkeypatch.setattr(Evaluation, "add", lambda *_: pytest.fail("it had begun"))
    for option in ("--json", "--csv", "--plot"):
        for target in (tmp_path, tmp_path / "none" / "file"):
            command = ("eval", "--data", tmp_path / "data", "-m", "oracle:irm", option, target)
            assert f"{target} can't be written" in refused(*command)


@pytest.mark.parametrize(
    "where", ["rtsep.evaluate.report.draw", "rtsep.evaluate.evaluation.scores"]
)
def test_what_is_interrupted_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    put(tmp_path / "data", "000", sounds(0))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted)
    target = tmp_path / "plot.png"
    target.write_bytes(b"old")
    result = rtsep("eval", "--data", tmp_path / "data", "-m", "oracle:irm", "--plot", target)
    assert result.exit_code == 1 and result.stderr.strip() == "Aborted!"
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "plot.png"]


def test_speech_at_rates_that_pesq_does_not_know() -> None:
    pytest.importorskip("pesq", reason="needs a C compiler")
    speech, rate = soundfile.read(DEMO, dtype="float32")
    import soxr

    figures = {}
    for other in (8000, 16000, 44100):
        clean = soxr.resample(speech[: 3 * rate], rate, other)
        hiss = 0.01 * np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
        rest = np.stack([clean, hiss])[:, :, None]
        found = score.scores(rest + 0.1 * rest[::-1] + hiss[:, None], rest, other, ("s1", "hum"))
        figures[other] = found["s1"]
        assert "stoi" not in found["hum"]
    assert np.isnan(figures[8000]["pesq_wb"]) and 1 < figures[8000]["pesq_nb"] < 4.6
    assert all(1 < figures[rate]["pesq_wb"] < 4.7 for rate in (16000, 44100))
