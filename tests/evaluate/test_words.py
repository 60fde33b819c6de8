"""Word error rates: counted by hand, texts from every place, and one real recognition."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rtsep.errors import EvaluationError
from rtsep.evaluate import words
from rtsep.evaluate.evaluation import Evaluation
from rtsep.evaluate.folder import items
from rtsep.spec import Spec
from tests.support import models
from tests.support.audio import Array, quiet
from tests.support.command import refused, rtsep

RATE = 16000
TEXT = "The girl faced him, her eyes shining."


def put(folder: Path, name: str, sources: tuple[str, ...] = ("speech", "noise")) -> None:
    """A mixture of as much noise as there are sources, each at another level."""
    folder.mkdir(exist_ok=True)
    parts = [quiet(RATE, 1, seed) / 2**seed for seed in range(len(sources))]
    for source, part in zip(("mixture", *sources), (sum(parts), *parts), strict=True):
        soundfile.write(folder / f"{name}_{source}.wav", part, RATE, subtype="FLOAT")


def model(folder: Path) -> str:
    """A bundle whose stems are the mixture, three quarters and a quarter of it."""
    spec = Spec(RATE, 1, "waveform", "rectangular", 64, 64, 1, 1, ("speech", "noise"))
    return str(models.write(models.handmade(spec), folder / "share.onnx"))


def by_level(clean: str, mixture: str, estimate: str) -> Callable[[], words.Recogniser]:
    """A recogniser for `put` and `model` that tells the three versions by their level."""

    def recognise(sound: Array, rate_hz: int) -> str:
        assert (rate_hz, sound.shape, sound.dtype) == (RATE, (RATE,), np.float32)
        level = float(np.std(sound))
        heard = {0.1: clean, 0.1118: mixture, 0.75 * 0.1118: estimate}
        return heard[min(heard, key=lambda known: abs(known - level))]

    return lambda: recognise


def test_wrong_words_are_those_of_the_definition() -> None:
    pytest.importorskip("jiwer")
    for text, heard, wrong in (
        (TEXT, "the girl faced him her eyes shining", 0),
        (TEXT, "the girl faced her eyes shining", 1),
        (TEXT, "the pearl faced him he her eyes", 3),
        (TEXT, "", 7),
        ("Don't", "don\u2019t", 0),
        ("'Yes' - well-known", "YES, well known!", 0),
    ):
        assert words.wrong_words(text, heard) == wrong, heard


def test_rates_are_over_all_words_not_a_mean_of_mixtures() -> None:
    pytest.importorskip("jiwer")
    heard = iter(["one", "one", "", *["a b c d e f g h i", "a b c", "a b c d e f g h"]])
    texts = {("0", "speech"): "one", ("1", "speech"): "a b c d e f g h i"}
    found = words.Words(texts, lambda *_: next(heard))
    sound = quiet(8, 2)
    for item in ("0", "1", "2"):
        found.add(item, ("speech", "noise"), sound, np.stack([sound] * 2), np.stack([sound] * 2), 8)
    # In the order mixture, clean, estimate; the third mixture has no text.
    assert found.summary() == {"speech": words.WordErrors(10, 6 / 10, 0.0, 2 / 10)}
    first, worse, unknown = found.sentences()
    assert first == (
        "speech: word error rate 20.0% separated, 0.0% in the mixture, 60.0% alone (10 words)"
    )
    assert "makes recognition worse, by 20.0 percentage points" in worse
    assert unknown == "1 sources of speech have no text and were not recognised"


@pytest.mark.parametrize("estimate", ["the girl faced him", "nobody"])
def test_eval_counts_words_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimate: str
) -> None:
    pytest.importorskip("jiwer")
    data = tmp_path / "data"
    for name in ("000", "001"):
        put(data, name)
    (data / "000_speech.txt").write_text(TEXT)
    recognise = by_level("the girl faced him her eyes shining", "the girl", estimate)
    monkeypatch.setattr(words, "PocketSphinx", recognise)
    paths = tmp_path / "a.json", tmp_path / "a.csv"
    result = rtsep(
        "eval", "--data", data, "-m", model(tmp_path), "--wer", "--json", paths[0],
        "--csv", paths[1],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    wrong = {"the girl faced him": 3, "nobody": 7}[estimate]
    assert f"speech: word error rate {wrong / 7:.1%} separated, 71.4% in the" in result.stdout
    assert ("makes recognition worse" in result.stdout) == (estimate == "nobody")
    assert "1 sources of speech have no text" in result.stdout
    found = json.loads(paths[0].read_text())["words"]
    assert found["summary"]["speech"]["mixture"] == pytest.approx(5 / 7)
    (row,) = found["rows"]
    assert (row["item"], row["text"], row["estimate"]) == ("000", TEXT, estimate)
    assert row["errors"] == {"clean": 0, "mixture": 5, "estimate": wrong}
    lines = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert [line["words"] for line in lines] == ["7", "", "", ""]
    assert lines[0]["wrong_words_estimate"] == str(wrong)


def test_without_wer_no_word_is_said(tmp_path: Path) -> None:
    put(tmp_path / "data", "000")
    evaluation = Evaluation(tmp_path / "data", model(tmp_path))
    assert evaluation.words is None
    assert "word" not in rtsep("eval", "--data", tmp_path / "data", "-m", "oracle:irm").stdout


def test_texts_are_found_in_every_place(tmp_path: Path) -> None:
    for name in ("000", "001", "002"):
        put(tmp_path, name)
    (tmp_path / "list.csv").write_text('\ufeffid,text,snr_db\n000,"one\n two",5\n009,x,5\n001,,0\n')
    (tmp_path / "transcripts.csv").write_text("id,text\n000,other\n001,three\n")
    (tmp_path / "001_speech.txt").write_text("other")
    (tmp_path / "002_speech.txt").write_text("four\n")
    (tmp_path / "002_noise.txt").write_text(" \n")
    assert words.texts(tmp_path, items(tmp_path)) == {
        ("000", "speech"): "one\n two",
        ("001", "speech"): "three",
        ("002", "speech"): "four",
    }


def test_two_speakers_have_a_column_each(tmp_path: Path) -> None:
    put(tmp_path, "000", ("speaker1", "speaker2"))
    table = tmp_path / "transcripts.csv"
    table.write_text("id,text,text_speaker2,text_speaker1\n000,nobody's,two,one\n")
    expected = {("000", "speaker1"): "one", ("000", "speaker2"): "two"}
    assert words.texts(tmp_path, items(tmp_path)) == expected


def test_folders_without_texts(tmp_path: Path) -> None:
    put(tmp_path, "000")
    (tmp_path / "list.csv").write_text("id,speaker\n000,anna\n")
    with pytest.raises(EvaluationError, match=r"no texts .* list.csv or transcripts.csv with col"):
        words.texts(tmp_path, items(tmp_path))
    (tmp_path / "list.csv").write_bytes(b"id,text\n000,\xff\n")
    with pytest.raises(EvaluationError, match=r"list.csv can't be read: .*utf-8"):
        words.texts(tmp_path, items(tmp_path))


def test_missing_packages_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "000")
    find = importlib.util.find_spec
    absent = {"pocketsphinx", "jiwer"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in absent else find(name)
    )
    sentence = refused("eval", "--data", tmp_path, "-m", "oracle:irm", "--wer")
    assert "needs pocketsphinx and jiwer" in sentence and "'rtsep[wer]'" in sentence


def spoken(folder: Path, text: str) -> tuple[Array, int]:
    """The text by the synthesiser flite."""
    path = folder / "spoken.wav"
    subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", path], check=True)
    sound: tuple[Any, int] = soundfile.read(path, dtype="float32")
    return sound


@pytest.fixture(scope="module")
def recognise() -> words.Recogniser:
    pytest.importorskip("pocketsphinx", reason="needs pip install 'rtsep[wer]'")
    return words.PocketSphinx()


def test_silence_has_no_words_and_nothing_is_remembered(recognise: words.Recogniser) -> None:
    assert recognise(np.zeros(RATE, np.float32), RATE) == ""
    assert recognise(np.zeros(0, np.float32), RATE) == ""
    noise = quiet(RATE // 2, 1, seed=3)[:, 0]
    first = recognise(noise, RATE)
    recognise(8 * np.sin(np.arange(RATE, dtype=np.float32)), 44100)
    assert recognise(noise, RATE) == first


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs a speaker: apt install flite")
def test_spoken_words_are_recognised_and_lost_in_noise(
    tmp_path: Path, recognise: words.Recogniser
) -> None:
    text = "The girl faced him."
    speech, rate = spoken(tmp_path, text)
    data = tmp_path / "data"
    data.mkdir()
    noise = 2 * np.std(speech) * quiet(len(speech), 1)[:, 0] / 0.1
    soundfile.write(data / "000_speech.wav", speech, rate, subtype="FLOAT")
    soundfile.write(data / "000_mixture.wav", speech + noise, rate, subtype="FLOAT")
    (data / "transcripts.csv").write_text(f"id,text\n000,{text}\n")
    evaluation = Evaluation(data, "oracle:irm", recognise)
    evaluation.add(evaluation.items[0])
    assert evaluation.words is not None
    found = evaluation.words.summary()["speech"]
    assert found.words == 4
    assert found.clean <= 1 / 4 and found.mixture > 0.5 and found.estimate < found.mixture
