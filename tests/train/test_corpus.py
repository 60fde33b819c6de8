"""Training data: every layout is recognised, every mixer keeps its promises."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from rtsep.errors import CorpusError
from rtsep.train.corpus import STEMS, Corpus, Row
from rtsep.train.layouts import table
from tests.support.audio import tone

RATE = 8000


def put(path: Path, hz: float = 300.0, seconds: float = 0.5, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(hz, seconds, rate), rate)
    return path


def manifest(folder: Path, rows: list[tuple[str, ...]], *more: str) -> None:
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split", "speaker_or_category", *more), *rows])


def found(folder: Path) -> set[tuple[str, str, str]]:
    """Split, role and key of what is there; every file of it exists."""
    rows = table(folder)
    assert rows and all(row.path.is_file() for row in rows)
    return {(row.split, row.role, row.key) for row in rows}


def corpus(folder: Path, split: str = "train", rate: int = RATE) -> Corpus:
    return Corpus.load([row for row in table(folder) if row.split == split], rate)


def test_the_projects_own_table(tmp_path: Path) -> None:
    rows = [
        ("speech16k/train/a.flac", "train", "so01f"),
        ("speech16k/train/b.flac", "train", "pv00"),
        ("speech16k/val/c.flac", "val", "so02m"),
        ("noise16k/train/d.flac", "train", "rain"),
        ("noise16k/train/e.flac", "train", "berlin_crowd"),
        ("rir16k/train/f.flac", "train", "hall"),
        ("music44k/train/songs/one_a/vocals.flac", "train", "vocals"),
        ("music44k/train/songs/one_a/bass_other_mixed.flac", "train", "bass_other_mixed"),
        ("music44k/train/songs/one_b/drums.flac", "train", "drums"),
        ("music44k/train/songs/two_a/bass.flac", "train", "bass"),
        ("music44k/train/drums/loops/g.flac", "train", "drums/loops"),
    ]
    for row in rows:
        put(tmp_path / row[0])
    manifest(tmp_path, rows)
    assert found(tmp_path) == {
        ("train", "speech", "so01f"),
        ("train", "speech", "pv00"),
        ("val", "speech", "so02m"),
        ("train", "noise", "rain"),
        ("train", "room", "hall"),
        ("val", "vocals", "one_a"),  # a whole song is held out, never an excerpt of one
        ("val", "drums", "one_b"),
        ("train", "bass", "two_a"),
        ("train", "drums piece", "drums/loops"),
    }
    assert corpus(tmp_path).unlabelled == {"pv00"}


def test_a_table_may_name_the_roles(tmp_path: Path) -> None:
    put(tmp_path / "x/1.wav")
    put(tmp_path / "x/2.wav")
    rows = [("x/1.wav", "train", "anna", "speech"), ("x/2.wav", "train", "fan", "noise")]
    manifest(tmp_path, rows, "role")
    assert found(tmp_path) == {("train", "speech", "anna"), ("train", "noise", "fan")}


@pytest.mark.parametrize(
    ("pattern", "train", "test"),
    [
        ("{split}/{song}/{stem}.wav", "train", "test"),
        ("Sources/{split}/{song}/{stem}.wav", "Dev", "Test"),
    ],
    ids=["MUSDB18", "DSD100"],
)
def test_folders_of_songs(tmp_path: Path, pattern: str, train: str, test: str) -> None:
    for split, songs in ((train, [f"Band {i:02d} - Song" for i in range(9)]), (test, ["X - Y"])):
        for song in songs:
            for stem in (*STEMS, "mixture"):
                put(tmp_path / pattern.format(split=split, song=song, stem=stem))
    rows = found(tmp_path)
    assert {role for _, role, _ in rows} == set(STEMS)
    assert {key for split, _, key in rows if split == "val"} == {"Band 07 - Song"}
    assert len({key for split, _, key in rows if split == "train"}) == 8
    assert {key for split, _, key in rows if split == "test"} == {"X - Y"}


def write_stem_mp4(path: Path, levels: list[float]) -> None:
    """One AAC track per level, each a tone of its own, like the files of MUSDB18."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        for i, _ in enumerate(levels):
            container.add_stream("aac", rate=44100, layout="stereo").metadata["title"] = f"{i}"
        for i, (level, stream) in enumerate(zip(levels, container.streams.audio, strict=True)):
            tone = level * np.sin(2 * np.pi * 100 * (i + 1) * np.arange(44100) / 44100)
            frame = av.AudioFrame.from_ndarray(np.tile(tone, (2, 1)).astype("f4"), "fltp", "stereo")
            frame.sample_rate = 44100
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)


def test_musdb_as_mp4(tmp_path: Path) -> None:
    write_stem_mp4(tmp_path / "train/Band - Song.stem.mp4", [0.5, 0.1, 0.2, 0.3, 0.4])
    rows = table(tmp_path)
    assert [(row.role, row.key, row.split) for row in rows] == [
        (stem, "Band - Song", "train") for stem in ("drums", "bass", "other", "vocals")
    ]
    corpus = Corpus.load(rows, 44100)
    for i, stem in enumerate(("drums", "bass", "other", "vocals"), start=1):
        (clip,) = corpus.pool(stem)["Band - Song"]
        spectrum = np.abs(np.fft.rfft(clip[8000:36000] / 32768))
        assert spectrum.argmax() == round(100 * (i + 1) * 28000 / 44100)
        assert np.max(np.abs(clip[8000:36000])) / 32768 == pytest.approx(0.1 * i, rel=0.1)


def test_a_broken_mp4_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/Band - Song.stem.mp4").write_bytes(b"no video")
    corpus = Corpus.load(table(tmp_path), 44100)
    assert not corpus.clips and len(corpus.skipped) == 4
    assert "skipped 4 unusable files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("splits", "names", "speakers"),
    [
        (("train-100", "dev", "test"), "103-1240-0003_1235-135887-0017", {"103", "1235"}),
        (("tr", "cv", "tt"), "011a0101_0.4_20ga010m_-0.4", {"011", "20g"}),
    ],
    ids=["LibriMix", "WSJ0-mix"],
)
def test_folders_of_two_speakers(
    tmp_path: Path, splits: tuple[str, ...], names: str, speakers: set[str]
) -> None:
    for split in splits:
        for source in ("s1", "s2", "mix_clean"):
            put(tmp_path / "wav8k/min" / split / source / f"{names}.wav")
            put(tmp_path / "wav16k/max" / split / source / f"{names}.wav")  # the same again
    rows = table(tmp_path)
    assert len(rows) == 6
    assert {row.split for row in rows} == {"train", "val", "test"}
    assert {row.key for row in rows} == speakers


def test_lists_of_librimix(tmp_path: Path) -> None:
    for name in ("103/1240/103-1240-0003", "1235/135887/1235-135887-0017"):
        put(tmp_path / f"LibriSpeech/{name}.flac")
    lists = tmp_path / "LibriSpeech/metadata"
    lists.mkdir()
    line = "x,103/1240/103-1240-0003.flac,0.5,1235/135887/1235-135887-0017.flac,0.4"
    for split in ("train-clean-100", "dev-clean"):
        (lists / f"libri2mix_{split}.csv").write_text(
            f"mixture_ID,source_1_path,source_1_gain,source_2_path,source_2_gain\n{line}\n"
        )
    rows = [row for row in table(tmp_path) if row.path.is_file()]
    assert {(row.role, row.key) for row in rows} == {("speech", "103"), ("speech", "1235")}


def test_lists_of_wsj(tmp_path: Path) -> None:
    for split, folder in (("tr", "si_tr_s"), ("cv", "si_tr_s"), ("tt", "si_et_05")):
        names = [f"wsj0/{folder}/{split}{who}/{split}{who}c0201.wav" for who in "ab"]
        for name in names:
            put(tmp_path / name)
        listed = f"{names[0]} 1.2 {names[1]} -1.2\n"
        (tmp_path / f"mix_2_spk_{split}.txt").write_text(listed * 3)
    wanted = {("train", "tr"), ("val", "cv"), ("test", "tt")}
    assert found(tmp_path) == {(s, "speech", n + who) for s, n in wanted for who in "ab"}


def test_voicebank_demand_and_its_noise(tmp_path: Path) -> None:
    rate = 48000
    speech, noise = tone(300, rate=rate), tone(5000, rate=rate) / 2
    for subset, speakers in (("trainset_28spk", ("p226", "p227", "p228")), ("testset", ("p232",))):
        for kind, made in (("clean", speech), ("noisy", speech + noise)):
            for speaker in speakers:
                path = tmp_path / f"{kind}_{subset}_wav/{speaker}_001.wav"
                path.parent.mkdir(exist_ok=True)
                soundfile.write(path, made, rate, subtype="FLOAT")
    rows = found(tmp_path)
    assert {key for split, _, key in rows if split == "val"} == {"p228"}
    assert ("test", "speech", "p232") in rows
    loaded = corpus(tmp_path, rate=16000)  # mixed rates are resampled
    assert sorted(loaded.pool("speech")) == sorted(loaded.pool("noise")) == ["p226", "p227"]
    heard = loaded.pool("noise")["p226"][0] / 32768
    assert len(heard) == pytest.approx(8000, abs=1)
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) == pytest.approx(2500, abs=2)  # 5 kHz of half a second
    assert spectrum[150] < 0.01 * spectrum.max()


def test_what_has_no_layout_is_told_which_there_are(tmp_path: Path) -> None:
    put(tmp_path / "some/file.wav")
    with pytest.raises(CorpusError) as caught:
        table(tmp_path)
    for name in ("MANIFEST.csv", "MUSDB18", "DSD100", "VoiceBank-DEMAND", "LibriMix", "WSJ0-mix"):
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(CorpusError, match="there is no such folder"):
        table(tmp_path / "missing")
    (tmp_path / "MANIFEST.csv").write_text("path,split\n")
    with pytest.raises(CorpusError, match="no column speaker_or_category"):
        table(tmp_path)


def test_files_that_cannot_be_used_are_skipped_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, slow = put(tmp_path / "good.wav"), put(tmp_path / "slow.wav", rate=RATE // 2)
    (tmp_path / "broken.flac").write_bytes(b"fLaC but no more")
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(9, np.nan), RATE, subtype="FLOAT")
    bad = [
        tmp_path / f"{name}"
        for name in ("broken.flac", "silent.wav", "empty.wav", "nan.wav", "missing.wav")
    ]
    rows = [Row(path, "train", "speech", "anna") for path in (good, *bad, slow)]
    made = Corpus.load(rows, RATE)
    assert [len(clip) for clip in made.pool("speech")["anna"]] == [RATE // 2, RATE // 2]
    assert all(clip.dtype == np.int16 for clip in made.pool("speech")["anna"])
    said = capsys.readouterr().err
    assert "skipped 5" in said
    for path in bad:
        assert str(path) in said
    # A stem that is silent is an instrument that does not play: nothing is wrong with it.
    silent = Corpus.load([Row(tmp_path / "silent.wav", "train", "bass", "song")], RATE)
    assert not silent.skipped and not silent.pool("bass")
