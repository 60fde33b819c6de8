"""Files are read block by block or refused in one sentence; stems appear complete or not at all."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsep.io import files
from rtsep.io.files import AudioFileError, StemWriter, blocks, info, read_all, stem_path

RATE = 16000
DEMO = Path(files.__file__).parents[1] / "demo.flac"


def noise(length, channels=2, seed=0):
    return (np.random.default_rng(seed).standard_normal((length, channels)) * 0.1).astype("f4")


def refused(path, block_length=1000):
    """The sentence with which a file is refused: it names the file, and is one line."""
    with pytest.raises(AudioFileError) as caught:
        for _ in blocks(path, block_length):
            pass
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence
    return sentence


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 3000), block=st.integers(1, 4000), channels=st.integers(1, 3))
def test_blocks_are_the_file(tmp_path_factory, length, block, channels):
    path = tmp_path_factory.mktemp("f") / "a.wav"
    x = noise(length, channels)
    soundfile.write(path, x, RATE, subtype="FLOAT")
    parts = [part.copy() for part in blocks(path, block)]
    assert all(len(part) == block for part in parts[:-1])
    np.testing.assert_array_equal(np.concatenate(parts), x)
    assert info(path) == files.AudioInfo(RATE, channels, length)
    whole, rate = read_all(path)
    np.testing.assert_array_equal(whole, x)
    assert rate == RATE


def test_a_block_length_of_zero_is_refused():
    with pytest.raises(ValueError, match="block_length must be 1 or more, not 0"):
        next(blocks(DEMO, 0))


def test_what_is_not_a_file(tmp_path):
    assert "no such file" in refused(tmp_path / "missing.wav")
    assert "is a directory" in refused(tmp_path)


def test_what_is_not_audio(tmp_path):
    for name, content, reason in (
        ("zero.wav", b"", "is empty"),
        ("text.wav", b"hello there, this is text" * 9, "is not audio that can be read: format not"),
        ("head.wav", b"RIFF\x00\x00\x00\x00WAVE", "is not audio that can be read"),
        ("headerless.raw", b"1234" * 9, "is not audio that can be read"),
    ):
        (tmp_path / name).write_bytes(content)
        assert reason in refused(tmp_path / name)


def test_no_samples(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(0), RATE)
    assert "0 samples" in refused(path)


def test_too_many_channels(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(9, 65), RATE)
    assert "65 channels, more than 64" in refused(path)
    soundfile.write(path, noise(9, 64), RATE)
    assert info(path).channels == 64


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite(tmp_path, bad):
    path = tmp_path / "a.wav"
    x = noise(5000)
    x[3210, 1] = bad
    soundfile.write(path, x, RATE, subtype="FLOAT")
    assert "sample 3210 of channel 1 is not a finite number" in refused(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff"])
def test_a_truncated_file(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(40000), RATE)
    whole = path.read_bytes()
    for part in blocks(path, 1000):
        assert len(part)
    path.write_bytes(whole[: len(whole) // 2])
    sentence = refused(path)
    assert "truncated" in sentence or "damaged after sample" in sentence


def test_a_wav_out_of_a_pipe_is_not_called_truncated(tmp_path):
    path = tmp_path / "a.wav"
    x = noise(100, 1)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, RATE, RATE * 4, 4, 32)
    unknown = 0xFFFFFFFF
    head = struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE") + form
    path.write_bytes(head + struct.pack("<4sI", b"data", unknown) + x.tobytes())
    np.testing.assert_array_equal(read_all(path)[0], x)


def test_names_of_stems(tmp_path):
    assert stem_path("out", "/in/my song.v2.mp3", "speech") == Path("out/my song.v2_speech.wav")
    for source in ("", "../up", "a/b", "a\\b", ".hidden", "a\0"):
        with pytest.raises(AudioFileError, match="cannot be part of a file name"):
            stem_path(tmp_path, "a.wav", source)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_stems_round_trip(tmp_path, suffix):
    paths = [tmp_path / "new" / "folder" / f"a_{name}.{suffix}" for name in ("one", "two")]
    subtype = "FLOAT" if suffix == "wav" else "PCM_16"
    x = noise(5000, 4).reshape(-1, 2, 2)
    with StemWriter(paths, RATE, 2, subtype) as writer:
        for first in range(0, 5000, 777):
            writer.write(x[first : first + 777])
            assert not any(path.exists() for path in paths)
    for index, path in enumerate(paths):
        np.testing.assert_allclose(read_all(path)[0], x[:, index], atol=2.0**-15)
        if suffix == "wav":
            np.testing.assert_array_equal(read_all(path)[0], x[:, index])
    assert sorted(tmp_path.rglob("*.*")) == sorted(paths)


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16", "PCM_24"])
def test_a_small_wav_is_plain_wav(tmp_path, subtype):
    path = tmp_path / "a.wav"
    with StemWriter([path], RATE, 1, subtype) as writer:
        writer.write(noise(999, 1)[:, None])
    content = path.read_bytes()
    assert content[:4] == b"RIFF" and content[8:12] == b"WAVE"
    assert struct.unpack("<I", content[4:8])[0] == len(content) - 8
    with soundfile.SoundFile(path) as file:
        assert (file.format, file.subtype, file.frames) == ("WAVEX", subtype, 999)
        assert "(should be" not in file.extra_info
    assert len(content) % 2 == 0


def test_a_wav_over_4_gb_stays_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_WAV_LIMIT", 1000)
    path = tmp_path / "a.wav"
    x = noise(999, 1)
    with StemWriter([path], RATE, 1) as writer:
        writer.write(x[:, None])
    assert path.read_bytes()[:4] == b"RF64"
    np.testing.assert_array_equal(read_all(path)[0], x)


def test_header_of_a_foreign_file_is_left_alone():
    raw = io.BytesIO(b"fLaC" + bytes(100))
    files._downgrade(raw)
    assert raw.getvalue() == b"fLaC" + bytes(100)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_and_keeps_the_old(tmp_path, failure):
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    paths[0].write_bytes(b"old")
    with pytest.raises(failure), StemWriter(paths, RATE, 1) as writer:
        writer.write(noise(99, 2)[:, :, None])
        raise failure
    assert list(tmp_path.iterdir()) == paths[:1]
    assert paths[0].read_bytes() == b"old"


@pytest.mark.parametrize("error", [soundfile.LibsndfileError(2), AssertionError()])
@pytest.mark.parametrize("free", [0, 1 << 40])
def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch, error, free):
    def fail(*_):
        raise error

    usage = files.shutil.disk_usage(tmp_path)._replace(free=free)
    with (
        pytest.raises(AudioFileError) as caught,
        StemWriter([tmp_path / "a.wav"], RATE, 1) as writer,
    ):
        writer.write(noise(99, 1)[:, None])
        monkeypatch.setattr(soundfile.SoundFile, "write", fail)
        monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)
        writer.write(noise(99, 1)[:, None])
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'a.wav'}: ")
    assert ("no space left on the disk" in str(caught.value)) == (free == 0)
    assert not list(tmp_path.iterdir())


def test_a_file_that_lost_samples_is_not_renamed(tmp_path):
    with (
        pytest.raises(AudioFileError, match="not everything was written"),
        StemWriter([tmp_path / "a.wav"], RATE, 1) as writer,
    ):
        writer.write(noise(99, 1)[:, None])
        writer.length += 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        with pytest.raises(AudioFileError, match=f"^cannot write into {folder}: .+$"):
            StemWriter([folder / "a.wav"], RATE, 1)


def test_targets_and_formats_that_cannot_be(tmp_path):
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(AudioFileError, match="it is a folder"):
        StemWriter([tmp_path / "b.wav", tmp_path / "a.wav"], RATE, 1)
    for name, subtype in (
        ("a.xyz", "FLOAT"),
        ("a", "FLOAT"),
        ("b.wav", "NONE"),
        ("b.flac", "FLOAT"),
    ):
        with pytest.raises(AudioFileError, match="cannot write"):
            StemWriter([tmp_path / name], RATE, 1, subtype)
    with pytest.raises(ValueError, match="paths must be distinct"):
        StemWriter([tmp_path / "c.wav"] * 2, RATE, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_the_demo():
    demo = info(DEMO)
    assert demo.rate_hz == 16000 and demo.channels == 1
    assert 8 * 16000 <= demo.length <= 15 * 16000
    assert DEMO.stat().st_size < 400_000
    x, _ = read_all(DEMO)
    assert np.isfinite(x).all()
    peak_db = 20 * np.log10(np.abs(x).max())
    assert -3.2 < peak_db < -2.8, "neither clipped nor faint"
