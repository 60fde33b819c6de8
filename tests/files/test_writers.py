"""Stems appear complete or not at all; what is recorded live can be read at any moment."""

import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rtsep.errors import AudioFileError
from rtsep.files import writers
from rtsep.files.readers import read_all
from rtsep.files.writers import StemWriter, Take
from tests.support.audio import RATE
from tests.support.audio import quiet as noise


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

    usage = writers.shutil.disk_usage(tmp_path)._replace(free=free)
    with (
        pytest.raises(AudioFileError) as caught,
        StemWriter([tmp_path / "a.wav"], RATE, 1) as writer,
    ):
        writer.write(noise(99, 1)[:, None])
        monkeypatch.setattr(soundfile.SoundFile, "write", fail)
        monkeypatch.setattr(writers.shutil, "disk_usage", lambda _: usage)
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


def test_a_take_can_be_read_at_any_moment(tmp_path):
    x = noise(5000, 4).reshape(-1, 2, 2)
    take = Take(tmp_path / "new" / "folder", ("mixture", "a"), RATE, 2)
    for first in range(0, 5000, 777):
        take.write(x[first : first + 777])
        for index, path in enumerate(take.paths):
            np.testing.assert_array_equal(read_all(path)[0], x[: first + 777, index])
            assert path.read_bytes()[:4] == b"RIFF"
    take.close()
    for index, path in enumerate(take.paths):
        np.testing.assert_array_equal(read_all(path)[0], x[:, index])
    assert sorted(tmp_path.rglob("*.*")) == sorted(take.paths)


def test_later_takes_get_a_number_and_leave_all_others_alone(tmp_path):
    (tmp_path / "a-2.wav").write_bytes(b"mine")
    names = []
    for _ in range(3):
        take = Take(tmp_path, ("mixture", "a"), RATE, 1)
        take.close()
        names.append([path.name for path in take.paths])
    assert names == [
        [f"{name}{tail}.wav" for name in ("mixture", "a")] for tail in ("", "-3", "-4")
    ]
    assert (tmp_path / "a-2.wav").read_bytes() == b"mine"
    assert not (tmp_path / "mixture-2.wav").exists()


def test_a_take_in_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        with pytest.raises(AudioFileError, match=f"^cannot write into {folder}: .+$"):
            Take(folder, ("a",), RATE, 1)
    with pytest.raises(AudioFileError, match="channels"):
        Take(tmp_path, ("a", "b"), RATE, 5000)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


_FULL = """
import sys
from pathlib import Path
import numpy as np
from rtsep.files.readers import AudioFileError
from rtsep.files.writers import Take

take = Take(Path(sys.argv[1]), ("a", "b", "c"), 16000, 1)
try:
    for value in range(10_000):
        take.write(np.full((1000, 3, 1), value, np.float32))
except AudioFileError as error:
    print(error)
take.close()
print(take.length)
"""


def full(folder, **options):
    """Write a take until it fails; its sentence, and the files."""
    command = [sys.executable, "-c", _FULL, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    sentence, length = done.stdout.splitlines()
    found = [read_all(path)[0][:, 0] for path in sorted(folder.glob("*.wav"))]
    assert len(found) == 3
    for x in found:
        np.testing.assert_array_equal(
            x, np.repeat(np.arange(int(length) // 1000, dtype="f4"), 1000)
        )
    assert int(length) > 0
    return sentence


def test_a_take_that_may_not_grow_ends_aligned_and_valid(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    assert full(tmp_path, preexec_fn=limit).startswith(f"cannot write {tmp_path / 'a.wav'}: ")


def test_a_full_disk_ends_a_take_aligned_and_valid(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        assert full(tmp_path).endswith(": no space left on the disk")
    finally:
        subprocess.run(["umount", tmp_path], check=True)
