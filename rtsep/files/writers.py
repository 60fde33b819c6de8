"""Write audio files in constant memory: stems atomically, or recordings valid at any moment."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import soundfile

from rtsep.errors import AudioFileError
from rtsep.files.atomic import part_of
from rtsep.files.readers import reason
from rtsep.spec import Float32

_DOWNGRADE = 0x1210  # SFC_RF64_AUTO_DOWNGRADE: files below 4 GB are plain WAV
_UPDATE_HEADER = 0x1061  # SFC_SET_UPDATE_HEADER_AUTO: update the header after every write


class _Files:
    """One open file per source.

    Parameters
    ----------
    paths
        Final paths, one per source. The suffix selects the format (.wav, .flac, ...); a .wav over
        4 GB becomes an RF64 file.
    places
        Paths that are written to.
    rate_hz
        Samples per second.
    channels
        Channels of each file.
    subtype
        Sample format as soundfile names it: ``"FLOAT"``, ``"PCM_24"``, ``"PCM_16"``, ...

    Attributes
    ----------
    paths
        The final paths.
    length
        Samples written to all files.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        places: Sequence[Path],
        rate_hz: int,
        channels: int,
        subtype: str,
    ) -> None:
        if not paths or len(set(paths)) != len(paths):
            raise ValueError(f"paths must be distinct, not {[str(path) for path in paths]}")
        self.paths = tuple(paths)
        self.length = 0
        self._places = tuple(places)
        self._files: list[soundfile.SoundFile] = []
        try:
            for path, place in zip(paths, places, strict=True):
                self._files.append(_created(path, place, rate_hz, channels, subtype))
        except BaseException:
            self._remove()
            raise

    def write(self, stems: Float32) -> None:
        """Append a block, (n, sources, channels) float32.

        Raises
        ------
        AudioFileError
            The block can't be written completely; ``length`` does not include it.
        """
        for index, file in enumerate(self._files):
            try:
                file.write(stems[:, index])
            except (soundfile.SoundFileError, OSError, AssertionError) as error:
                # AssertionError: incomplete write; otherwise libsndfile only says "System error".
                raise self._failed(index, error, stems[:, index].nbytes) from error
        self.length += len(stems)

    def _failed(self, index: int, error: Exception, needed: int) -> AudioFileError:
        """Return the reason of ``error``, raised while writing ``needed`` bytes of a source."""
        path = self.paths[index]
        # Libsndfile does not report the error number, so check for a full disk.
        with suppress(OSError):
            if shutil.disk_usage(path.parent).free < needed + (1 << 16):
                return AudioFileError(f"cannot write {path}: no space left on the disk")
        return AudioFileError(f"cannot write {path}: {reason(error)}")

    def _remove(self) -> None:
        for file in self._files:
            with suppress(soundfile.SoundFileError, OSError):
                file.close()
        for place in self._places:
            with suppress(OSError):
                place.unlink(missing_ok=True)


class StemWriter(_Files):
    """Write one file per source; all files appear at the end, or none.

    Parameters
    ----------
    paths
        One path per source; missing folders are created. The suffix selects the format (.wav,
        .flac, ...); a .wav over 4 GB becomes an RF64 file.
    rate_hz
        Samples per second.
    channels
        Channels of each file.
    subtype
        Sample format as soundfile names it: ``"FLOAT"``, ``"PCM_24"``, ``"PCM_16"``, ...

    Raises
    ------
    AudioFileError
        A file can't be written.
    """

    def __init__(
        self, paths: Sequence[str | Path], rate_hz: int, channels: int, subtype: str = "FLOAT"
    ) -> None:
        finals = [Path(path) for path in paths]
        super().__init__(finals, [part_of(path) for path in finals], rate_hz, channels, subtype)

    def commit(self) -> None:
        """Close all files and rename them to their final paths."""
        try:
            for index, (file, part) in enumerate(zip(self._files, self._places, strict=True)):
                try:
                    file.close()
                    if self.length and soundfile.info(part).frames != self.length:
                        raise OSError("not everything was written")
                except (soundfile.SoundFileError, OSError) as error:
                    raise self._failed(index, error, 1 << 16) from error
            for index, (part, path) in enumerate(zip(self._places, self.paths, strict=True)):
                try:
                    part.replace(path)
                except OSError as error:
                    raise self._failed(index, error, 0) from error
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Remove the files written so far; files at the final paths are not changed."""
        self._remove()

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


class Take(_Files):
    """Write one WAV per name; each file is valid, header included, after every block.

    All written blocks can be read, however the program ends. Existing files are not changed: the
    first take in a folder is ``<name>.wav``, later ones are ``<name>-2.wav``, ...

    Parameters
    ----------
    folder
        Folder of the files; created if missing.
    names
        Names of the files, without suffix.
    rate_hz
        Samples per second.
    channels
        Channels of each file; samples are 32-bit floats.

    Raises
    ------
    AudioFileError
        A file can't be written.
    """

    def __init__(self, folder: Path, names: Sequence[str], rate_hz: int, channels: int) -> None:
        paths = _free(folder, names)
        super().__init__(paths, paths, rate_hz, channels, "FLOAT")
        for file in self._files:
            _command(file, _UPDATE_HEADER)

    def close(self) -> None:
        """Truncate all files to ``length`` and close them; after a failure some may be longer."""
        for index, file in enumerate(self._files):
            try:
                file.truncate(self.length)
                file.close()
            except (soundfile.SoundFileError, OSError) as error:
                raise self._failed(index, error, 0) from error


def _free(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return unused paths for a new take in ``folder``."""
    for number in itertools.count(1):
        tail = f"-{number}" if number > 1 else ""
        paths = [folder / f"{name}{tail}.wav" for name in names]
        try:
            if not any(path.exists() for path in paths):
                return paths
        except OSError as error:
            raise AudioFileError(f"cannot write into {folder}: {reason(error)}") from error
    raise AssertionError("numbers do not end")


def _created(
    path: Path, place: Path, rate_hz: int, channels: int, subtype: str
) -> soundfile.SoundFile:
    """Open ``place`` for writing in the format of ``path``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place.open("wb").close()  # libsndfile would only say "System error"
    except OSError as error:
        raise AudioFileError(f"cannot write into {path.parent}: {reason(error)}") from error
    if path.is_dir():
        raise AudioFileError(f"cannot write {path}: it is a folder")
    kind = path.suffix[1:].upper()
    try:
        file = soundfile.SoundFile(
            place, "w", rate_hz, channels, subtype, format="RF64" if kind == "WAV" else kind
        )
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        raise AudioFileError(
            f"cannot write {path} as {kind or 'a file without suffix'} {subtype}, {channels} "
            f"channels at {rate_hz} Hz: {reason(error)}"
        ) from error
    _command(file, _DOWNGRADE)
    return file


def _command(file: soundfile.SoundFile, command: int) -> None:
    """Set a libsndfile option that soundfile does not offer."""
    soundfile._snd.sf_command(file._file, command, soundfile._ffi.NULL, 1)
