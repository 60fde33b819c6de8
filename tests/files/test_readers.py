"""Files are read block by block or refused in one sentence; stems appear complete or not at all."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rtsep.errors import AudioFileError
from rtsep.files import readers
from rtsep.files.readers import blocks, info, read_all, stem_path
from tests.support.audio import quiet as noise
from tests.support.paths import DEMO
from tests.support.random_cases import cases

RATE = 16000


def refused(path, block_length=1000):
    """The sentence with which a file is refused: it names the file, and is one line."""
    with pytest.raises(AudioFileError) as caught:
        for _ in blocks(path, block_length):
            pass
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence
    return sentence


@cases(20)
@given(length=st.integers(1, 3000), block=st.integers(1, 4000), channels=st.integers(1, 3))
def test_blocks_are_the_file(tmp_path_factory, length, block, channels):
    path = tmp_path_factory.mktemp("f") / "a.wav"
    x = noise(length, channels)
    soundfile.write(path, x, RATE, subtype="FLOAT")
    parts = [part.copy() for part in blocks(path, block)]
    assert all(len(part) == block for part in parts[:-1])
    np.testing.assert_array_equal(np.concatenate(parts), x)
    assert info(path) == readers.AudioInfo(RATE, channels, length)
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


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2_000_000_000])
def test_rates_that_are_no_sound(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(9, 1), rate)
    assert f"has {rate} samples per second; 1000 to 768000 are possible" in refused(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite(tmp_path, bad):
    path = tmp_path / "a.wav"
    x = noise(5000)
    x[3210, 1] = bad
    soundfile.write(path, x, RATE, subtype="FLOAT")
    assert "sample 3210 of channel 1 is not a finite number" in refused(path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "aiff", "mp3", "w64", "au", "rf64"])
def test_a_truncated_file(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(40000), RATE, format=suffix)
    whole = path.read_bytes()
    for part in blocks(path, 1000):
        assert len(part)
    path.write_bytes(whole[: len(whole) // 2])
    sentence = refused(path)
    assert "truncated" in sentence or "damaged after sample" in sentence


@pytest.mark.parametrize(("suffix", "at"), [("w64", 16), ("rf64", 20)])
def test_a_truncated_file_of_gigabytes(tmp_path, suffix, at):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(1000), RATE, format=suffix)
    content = bytearray(path.read_bytes())
    content[at : at + 8] = struct.pack("<q", 5 << 30)  # the size in the header
    path.write_bytes(content)
    assert f"header promises {5 << 30} bytes" in refused(path)


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


def test_the_demo():
    demo = info(DEMO)
    assert demo.rate_hz == 16000 and demo.channels == 1
    assert 8 * 16000 <= demo.length <= 15 * 16000
    assert DEMO.stat().st_size < 400_000
    x, _ = read_all(DEMO)
    assert np.isfinite(x).all()
    peak_db = 20 * np.log10(np.abs(x).max())
    assert -3.2 < peak_db < -2.8, "neither clipped nor faint"
