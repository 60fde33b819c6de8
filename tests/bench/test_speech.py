"""The measuring sets of `speech` are made alike each time, and scored as a known model deserves."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench import speech_rows, speech_sets
from rtsep.evaluate.folder import items
from rtsep.spec import Spec
from rtsep.train.sound import active_rms, rms
from tests.support import models
from tests.support.audio import Array, quiet

RATE = 16000
SPEAKERS = [f"so{number}f" for number in range(5)]


def put(path: Path, seed: int, seconds: float = 1.0, rate: int = RATE, gain: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, gain * quiet(round(seconds * rate), 1, seed), rate)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up data in the layout of the project's own."""
    folder = tmp_path_factory.mktemp("data")
    rows = [(f"speech16k/test/{name}/a.flac", "test", name) for name in SPEAKERS]
    rows += [("speech16k/train/so9m/a.flac", "train", "so9m")]
    rows += [(f"noise16k/test/{name}/a.flac", "test", name) for name in ("rain", "typing")]
    rows += [("noise16k/test/amb_cafe/a.flac", "test", "amb_cafe")]
    for seed, (path, _, _) in enumerate(rows):
        put(folder / path, seed, seconds=12.0 if "rain" in path else 1.0)
    for seed, (stem, gain) in enumerate((("bass", 4.0), ("drums", 1.0), ("vocals", 9.0)), 90):
        path = f"music44k/test/songs/song_a/{stem}.flac"
        rows.append((path, "test", stem))
        put(folder / path, seed, 8.0, 44100, gain / 10)
    speech, noise = (quiet(3 * RATE, 1, seed) for seed in (50, 51))
    (folder / "bench/speech_noise").mkdir(parents=True)
    for name, samples in (("000_speech", speech), ("000_mixture", speech + noise / 2)):
        soundfile.write(folder / f"bench/speech_noise/{name}.flac", samples, RATE)
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split", "speaker_or_category"), *rows])
    return folder


@pytest.fixture(scope="module")
def sets(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speech_sets, "SECONDS", 2.0)
        speech_sets.make(data, folder, 2)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "list.csv").read_text().splitlines()))


def sound(path: Path) -> Array:
    samples: Array = soundfile.read(path, dtype="float32")[0]
    return samples


def told(
    module: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *words: object,
) -> tuple[int, str, str]:
    """Exit code, output and error output of a program of the bench."""
    monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
    code = 0
    try:
        module.main()  # type: ignore[attr-defined]
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capsys.readouterr()


def test_two_runs_write_the_same_files(
    data: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_sets, "SECONDS", 2.0)
    speech_sets.make(data, tmp_path, 1)
    fewer = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.flac")}
    same = {path: (sets / path).read_bytes() for path in fewer}
    assert len(fewer) == 2 * 2 + 2 + 2 * len(SPEAKERS) + 2 * 2 and fewer == same


def test_mixtures_have_the_ratio_and_the_speakers_of_their_list(sets: Path) -> None:
    for name in ("babble", "music"):
        found = rows(sets / name)
        assert [row["speaker"] for row in found] == SPEAKERS[:2]
        assert [row["snr_db"] for row in found] == ["0", "2.5"]
        assert [item.name for item in items(sets / name)] == ["000", "001"]
        for row in found:
            mixture, speech = (
                sound(sets / name / f"{row['id']}_{part}.flac") for part in ("mixture", "speech")
            )
            assert len(mixture) == 2 * RATE
            ratio = 20 * np.log10(active_rms(speech) / rms(mixture - speech))
            assert ratio == pytest.approx(float(row["snr_db"]), abs=0.05)
            if name == "babble":
                assert {row["speaker"], *row["babble"].split()} == set(SPEAKERS)


def test_a_speaker_meets_every_ratio() -> None:
    turns = {speech_sets.turn(SPEAKERS, k) for k in range(25)}
    assert len(turns) == 25


def test_music_has_no_vocals_and_stems_of_one_level(data: Path) -> None:
    wanted = [row for row in speech_sets.table(data) if row.role in ("bass", "drums", "vocals")]
    corpus = speech_sets.Corpus.load(wanted, RATE)
    (song,) = speech_sets.instrumentals(corpus).values()
    stems = [corpus.pool(role)["song_a"][0].astype(np.float32) for role in ("bass", "drums")]
    np.testing.assert_allclose(song, sum(stem / rms(stem) for stem in stems), atol=0.01)


def test_noise_and_clean_speech_lie_alone(sets: Path) -> None:
    assert [row["noise"] for row in rows(sets / "noise")] == ["rain", "typing"]
    for path in (sets / "noise").glob("*.flac"):
        assert len(sound(path)) == 10 * RATE
        assert 20 * np.log10(rms(sound(path))) == pytest.approx(-30, abs=0.1)
    assert [row["speaker"] for row in rows(sets / "clean")] == 2 * SPEAKERS
    assert not list(sets.glob("clean/*_speech.flac")) + list(sets.glob("noise/*_speech.flac"))


def test_levels_step_in_the_middle(data: Path, sets: Path) -> None:
    for part in ("mixture", "speech"):
        original = sound(data / f"bench/speech_noise/000_{part}.flac")
        loud, quiet_ = np.split(original, 2), np.split(original / 10, 2)
        for name, halves in (("louder", (quiet_[0], loud[1])), ("quieter", (loud[0], quiet_[1]))):
            found = sound(sets / f"level_steps/000_{name}_{part}.flac")
            np.testing.assert_allclose(found, np.concatenate(halves), atol=1e-6)


def test_rows_of_a_model_that_only_attenuates(
    data: Path,
    sets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = Spec(RATE, 1, "waveform", "rectangular", 64, 64, 1, 1, ("speech", "noise"))
    model = models.write(models.handmade(spec), tmp_path / "share.onnx")
    path = tmp_path / "rows.json"
    code, out, _ = told(
        speech_rows, monkeypatch, capsys,
        "--model", model, "--data", data, "--sets", sets, "--json", path,
    )  # fmt: skip
    assert code == 0 and "attenuation dB, least: " in out and "-0.00" not in out
    assert re.search(r"from 1 s after it +0\.00 +0\.00 +\+0\.00$", out, re.M)
    found = {(row["set"], row["score"]): row for row in json.loads(path.read_text())["rows"]}
    for name, count in (("noise", 1), ("babble", 2), ("music", 2)):
        row = found[f"speech in {name}", "SI-SDRi dB"]
        assert row["value"] == pytest.approx(0, abs=0.01) and len(row["files"]) == count
    gain_db = 20 * np.log10(models.GAINS[0])
    row = found["noise alone", "attenuation dB, mean"]
    assert row["value"] == pytest.approx(-gain_db, abs=0.01)
    assert set(row["files"]) == {"rain", "typing"}
    for step in ("+20", "-20"):
        for after in ("0.3", "1"):
            row = found[f"level step {step} dB", f"SI-SDRi dB from {after} s after it"]
            assert row["value"] == pytest.approx(row["without"], abs=0.01)
            assert set(row["files"]) == {"000_louder" if step == "+20" else "000_quieter"}


def test_a_step_costs_what_the_stem_loses(sets: Path) -> None:
    def deafened(mixture: Array) -> Array:
        """Adds a hum as strong as what came first."""
        hum = np.sin(np.arange(len(mixture), dtype=np.float32))
        return mixture + rms(mixture[:RATE]) * hum

    found = speech_rows.steps(sets / "level_steps", deafened)
    cost = {row.set: row.value - row.beside for row in found}
    assert cost["level step +20 dB"] > 3 and cost["level step -20 dB"] < -3


def test_silence_is_attenuated_by_a_finite_amount(sets: Path) -> None:
    first, least = speech_rows.noise(sets / "noise", np.zeros_like)
    assert first.value == least.value == speech_rows.MOST_DB


def test_bad_input_is_one_sentence(
    data: Path,
    sets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = tmp_path / "few"
    put(few / "bench/speech_noise/000_speech.flac", 0)
    put(few / "bench/speech_noise/000_mixture.flac", 1)
    put(few / "speech16k/test/a.flac", 2)
    head = "path,split,speaker_or_category\n"
    (few / "MANIFEST.csv").write_text(f"{head}speech16k/test/a.flac,test,so1f\n")
    for words, expected in (
        (("--data", tmp_path / "no", "--out", tmp_path), "there is no such folder"),
        (("--data", few, "--out", tmp_path), "has 1 test speakers; babble needs 5"),
        (("--data", data, "--out", sets), "babble exists already"),
        (("--data", data, "--out", tmp_path, "--mixtures", "0"), "must be 1 or more, not 0"),
    ):
        code, out, err = told(speech_sets, monkeypatch, capsys, *words)
        assert (code, out) == (1, "") and expected in err and err.count("\n") == 1
    for words, expected in (
        (("--model", "speech", "--sets", tmp_path), "lacks babble: python -m bench.speech_sets"),
        (("--model", "nobody", "--sets", sets), "nobody"),
        (("--model", "music", "--sets", sets), "music separates vocals, drums"),
        (("--model", "speech", "--sets", sets, "--json", tmp_path), "it is a folder"),
    ):
        code, out, err = told(speech_rows, monkeypatch, capsys, "--data", data, *words)
        assert (code, out) == (1, "") and expected in err and err.count("\n") == 1
    for module in (speech_sets, speech_rows):
        code, out, _ = told(module, monkeypatch, capsys, "--help")
        assert code == 0 and "examples:\n  python -m bench.speech_sets --data" in out
