"""Read audio files block by block, in constant memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from rtsep.errors import AudioFileError
from rtsep.spec import Float32

MAX_CHANNELS = 64
RATES_HZ = 1000, 768_000
"""Lowest and highest sample rate that is accepted."""
_PIPED = 0x7FFFF000  # larger sizes of 32 bits mean "unknown": the file was written to a pipe
_LONG = "riff", "Riff size"  # of W64 and RF64, with 64 bits
_PROMISE = re.compile(
    rf"^\s*(data|SSND|Data Size|{'|'.join(_LONG)})\s*: (\d+) \(should be (\d+)\)", re.MULTILINE
)


@dataclass(frozen=True)
class AudioInfo:
    """Figures of a file's header; ``length`` is in samples."""

    rate_hz: int
    channels: int
    length: int


def info(path: str | Path) -> AudioInfo:
    """Read the header of ``path``; raise `AudioFileError` if it can't be separated."""
    with _opened(Path(path)) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames)


def blocks(path: str | Path, block_length: int) -> Iterator[Float32]:
    """Read a file block by block, in constant memory.

    Parameters
    ----------
    path
        A file in any format of libsndfile.
    block_length
        Samples per block; the last block may be shorter.

    Yields
    ------
    (n, channels) float32. The array is reused for the next block.

    Raises
    ------
    AudioFileError
        The file can't be read, also at its first sample that is not finite or can't be decoded.
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
                    f"{path} is damaged after sample {position} of {file.frames}: {reason(error)}"
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
    """Read a whole file; return (n, channels) float32 and its rate in Hz."""
    parts = [block.copy() for block in blocks(path, 1 << 16)]
    return np.concatenate(parts), info(path).rate_hz


def stem_path(folder: str | Path, input_path: str | Path, source: str) -> Path:
    """Return the path of a stem: ``folder/<input stem>_<source>.wav``."""
    if not source or set(source) & set("/\\:\0") or source.startswith("."):
        raise AudioFileError(f"{source!r} cannot be part of a file name")
    return Path(folder) / f"{Path(input_path).stem}_{source}.wav"


def _opened(path: Path) -> soundfile.SoundFile:
    """Open a file for reading and check its header."""
    try:
        with path.open("rb") as raw:  # for a better reason than libsndfile's "System error"
            first = raw.read(1)
    except OSError as error:
        raise AudioFileError(f"{path} cannot be read: {reason(error)}") from error
    if not first:
        raise AudioFileError(f"{path} is empty")
    try:
        file = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: a .raw file
        raise AudioFileError(f"{path} is not audio that can be read: {reason(error)}") from error
    if flaw := _flaw(file):
        file.close()
        raise AudioFileError(f"{path} {flaw}")
    return file


def _flaw(file: soundfile.SoundFile) -> str:
    """Return the fault that the header shows, or an empty string."""
    log = file.extra_info
    # If the file is shorter than its header says, libsndfile corrects the size; its log has both.
    for field, promised, present in _PROMISE.findall(log):
        known = field in _LONG or int(promised) < _PIPED
        if known and int(present) < int(promised):
            return f"is truncated: its header promises {promised} bytes, not {present}"
    if "lacks an end-of-stream bit" in log and "Junk after the last page" in log:
        return "is truncated: it ends in the middle of an Ogg page"
    if not file.frames:
        return "has no sound: 0 samples"
    if file.channels > MAX_CHANNELS:
        return f"has {file.channels} channels, more than {MAX_CHANNELS}"
    lowest, highest = RATES_HZ
    if not lowest <= file.samplerate <= highest:
        return f"has {file.samplerate} samples per second; {lowest} to {highest} are possible"
    return ""


def reason(error: Exception) -> str:
    """Return the reason of an error without path, number and full stop."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, soundfile.LibsndfileError):
        text = error.error_string
    text = text.removeprefix("Error : ").strip().rstrip(".") or type(error).__name__
    return text[:1].lower() + text[1:]
