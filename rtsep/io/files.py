"""Audio files in constant memory: read in blocks, write all stems or none."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

MAX_CHANNELS = 64
_WAV_LIMIT = (1 << 32) - (1 << 16)  # bytes a WAV header can count, with room for a tail of chunks
_PIPED = 0x7FFFF000  # sizes from here on mean "unknown": written into a pipe, not cut off
_PROMISE = re.compile(r"^\s*(?:data|SSND)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


class AudioFileError(ValueError):
    """A file that cannot be read or written; the message names it and says why, in one sentence."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds, as its header says; ``length`` is in samples."""

    rate_hz: int
    channels: int
    length: int


def info(path: str | Path) -> AudioInfo:
    """Read the header of ``path``; raise `AudioFileError` for anything that cannot be separated."""
    with _opened(Path(path)) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames)


def blocks(path: str | Path, block_length: int) -> Iterator[Float32]:
    """Read a file block by block, in constant memory.

    Parameters
    ----------
    path
        Of any format that libsndfile knows.
    block_length
        Samples per block; the last one is shorter where the length is no multiple of it.

    Yields
    ------
    (n, channels) float32. The array is used again for the next block.

    Raises
    ------
    AudioFileError
        Also in the middle, at the first sample that is not finite or cannot be decoded.
    """
    if block_length < 1:
        raise ValueError(f"block_length must be 1 or more, not {block_length}")
    path = Path(path)
    with _opened(path) as file:
        block = np.empty((block_length, file.channels), np.float32)
        position = 0
        while True:
            try:
                part: Float32 = file.read(out=block)
            except (soundfile.SoundFileError, OSError) as error:
                raise AudioFileError(
                    f"{path} is damaged after sample {position} of {file.frames}: {_reason(error)}"
                ) from error
            if not len(part):
                break
            finite = np.isfinite(part)
            if not finite.all():
                row, channel = np.argwhere(~finite)[0]
                raise AudioFileError(
                    f"{path}: sample {position + row} of channel {channel} is not a finite number"
                )
            position += len(part)
            yield part
        if position < file.frames:
            raise AudioFileError(
                f"{path} is truncated: its header promises {file.frames} samples, "
                f"{position} could be read"
            )


def read_all(path: str | Path) -> tuple[Float32, int]:
    """Read a short file whole: (n, channels) float32 and its rate in Hz."""
    parts = [block.copy() for block in blocks(path, 1 << 16)]
    return np.concatenate(parts), info(path).rate_hz


def stem_path(folder: str | Path, input_path: str | Path, source: str) -> Path:
    """Where the stem ``source`` of ``input_path`` goes: ``folder/<input stem>_<source>.wav``."""
    if not source or set(source) & set("/\\:\0") or source.startswith("."):
        raise AudioFileError(f"{source!r} cannot be part of a file name")
    return Path(folder) / f"{Path(input_path).stem}_{source}.wav"


class StemWriter:
    """Write one file per source; they appear together when all is written, or not at all.

    Parameters
    ----------
    paths
        One per source, in order; missing folders are made. The suffix picks the format (.wav,
        .flac, ...); a .wav may grow over 4 GB and is then an RF64 file.
    rate_hz
        Samples per second.
    channels
        Of each file.
    subtype
        Sample format as soundfile names it: ``"FLOAT"``, ``"PCM_24"``, ``"PCM_16"``, ...
    """

    def __init__(
        self, paths: Sequence[str | Path], rate_hz: int, channels: int, subtype: str = "FLOAT"
    ) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self.length = 0
        self._files: list[soundfile.SoundFile] = []
        # Hidden, and beside the target: renaming is atomic only within one file system.
        self._parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in self.paths]
        if not paths or len(set(self.paths)) != len(self.paths):
            raise ValueError(f"paths must be distinct, not {[str(path) for path in paths]}")
        try:
            for path, part in zip(self.paths, self._parts, strict=True):
                self._files.append(_created(path, part, rate_hz, channels, subtype))
        except BaseException:
            self.abort()
            raise

    def write(self, stems: Float32) -> None:
        """Append a block, (n, sources, channels) float32."""
        for index, file in enumerate(self._files):
            try:
                file.write(stems[:, index])
            except (soundfile.SoundFileError, OSError, AssertionError) as error:
                # Soundfile asserts that everything was written; libsndfile says "System error".
                raise self._failed(index, error, stems[:, index].nbytes) from error
        self.length += len(stems)

    def commit(self) -> None:
        """Finish all files and give them their names."""
        try:
            for index, (file, part) in enumerate(zip(self._files, self._parts, strict=True)):
                try:
                    file.close()
                    if self.length and soundfile.info(part).frames != self.length:
                        raise OSError("not everything was written")
                    with part.open("r+b") as raw:
                        _downgrade(raw)
                except (soundfile.SoundFileError, OSError) as error:
                    raise self._failed(index, error, 1 << 16) from error
            for index, (part, path) in enumerate(zip(self._parts, self.paths, strict=True)):
                try:
                    part.replace(path)
                except OSError as error:
                    raise self._failed(index, error, 0) from error
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove what was written so far; files under the final names stay as they were."""
        for file in self._files:
            with suppress(soundfile.SoundFileError, OSError):
                file.close()
        for part in self._parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def __enter__(self) -> StemWriter:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit; after any exception, KeyboardInterrupt included, abort."""
        if kind is None:
            self.commit()
        else:
            self.abort()

    def _failed(self, index: int, error: Exception, needed: int) -> AudioFileError:
        """Say why ``error`` came while ``needed`` bytes were written for source ``index``."""
        path = self.paths[index]
        # Libsndfile keeps the error number to itself, so a full disk has to be looked for.
        with suppress(OSError):
            if shutil.disk_usage(path.parent).free < needed + (1 << 16):
                return AudioFileError(f"cannot write {path}: no space left on the disk")
        return AudioFileError(f"cannot write {path}: {_reason(error)}")


def _opened(path: Path) -> soundfile.SoundFile:
    """Open for reading whatever can be separated."""
    try:
        with path.open("rb") as raw:  # libsndfile would only say "System error"
            first = raw.read(1)
    except OSError as error:
        raise AudioFileError(f"{path} cannot be read: {_reason(error)}") from error
    if not first:
        raise AudioFileError(f"{path} is empty")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: .raw
        raise AudioFileError(f"{path} is not audio that can be read: {_reason(error)}") from error
    if reason := _flaw(file):
        file.close()
        raise AudioFileError(f"{path} {reason}")
    return file


def _flaw(file: soundfile.SoundFile) -> str:
    """Return what the header already shows to be wrong, or nothing."""
    log = file.extra_info
    # Libsndfile corrects a size that the file does not reach, and only its log still knows.
    for promised, present in _PROMISE.findall(log):
        if int(present) < int(promised) < _PIPED:
            return f"is truncated: its header promises {promised} bytes of sound, not {present}"
    if "lacks an end-of-stream bit" in log and "Junk after the last page" in log:
        return "is truncated: it ends in the middle of an Ogg page"
    if not file.frames:
        return "holds no sound: 0 samples"
    if file.channels > MAX_CHANNELS:
        return f"has {file.channels} channels, more than {MAX_CHANNELS}"
    return ""


def _created(
    path: Path, part: Path, rate_hz: int, channels: int, subtype: str
) -> soundfile.SoundFile:
    """Open ``part`` for writing in the format of ``path``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.open("wb").close()  # libsndfile would only say "System error"
    except OSError as error:
        raise AudioFileError(f"cannot write into {path.parent}: {_reason(error)}") from error
    if path.is_dir():
        raise AudioFileError(f"cannot write {path}: it is a folder")
    kind = path.suffix[1:].upper()
    try:
        return soundfile.SoundFile(
            part, "w", rate_hz, channels, subtype, format="RF64" if kind == "WAV" else kind
        )
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise AudioFileError(
            f"cannot write {path} as {kind or 'a file without suffix'} {subtype}, {channels} "
            f"channels at {rate_hz} Hz: {_reason(error)}"
        ) from error


def _downgrade(raw: BinaryIO) -> None:
    """Turn an RF64 file that fits into 4 GB into plain WAV, which more programs read.

    The two differ in the first four letters, in the sizes, and in the chunk of 64-bit sizes, which
    every WAV reader skips under the name JUNK (EBU Tech 3306, section 4).
    """
    head = raw.read(36)
    size = raw.seek(0, os.SEEK_END)
    if head[:4] != b"RF64" or head[12:16] != b"ds64" or size > _WAV_LIMIT:
        return
    (sound,) = struct.unpack_from("<Q", head, 28)
    position = 12
    while position + 8 <= size:
        raw.seek(position)
        name, length = struct.unpack("<4sI", raw.read(8))
        if name == b"data":
            raw.seek(position + 4)
            raw.write(struct.pack("<I", sound))
            if position + 8 + sound + sound % 2 > size:  # libsndfile does not pad odd chunks
                size = raw.seek(size) + raw.write(b"\0")
            raw.seek(12)
            raw.write(b"JUNK")
            raw.seek(0)
            raw.write(b"RIFF" + struct.pack("<I", size - 8))
            return
        position += 8 + length + length % 2


def _reason(error: Exception) -> str:
    """Return the bare reason: no path, no number, no full stop."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, soundfile.LibsndfileError):
        text = error.error_string
    text = text.removeprefix("Error : ").strip().rstrip(".") or type(error).__name__
    return text[:1].lower() + text[1:]
