"""Download a file: resumed after a cut, within limits of size and time, checked, then renamed."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pooch
import requests

from rtsep.errors import ShelfError

ATTEMPTS = 4
"""Connections after which a cut download is given up; it goes on at the next command."""
PAUSE_S = 1.0
"""Time before the next connection."""
SILENT_S = 20.0
"""Longest time without a byte, in seconds."""
SLOW_S, SLOWEST = 60.0, 2000.0
"""A download that is slower than ``SLOWEST`` bytes per second after ``SLOW_S`` is given up."""
PIECE = 1 << 16
"""Bytes per read."""

_CUT = requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far, and the size if known."""


def download(
    url: str, folder: Path, sha256: str | None, limit: int, progress: Progress | None = None
) -> Path:
    """Return the path of a downloaded and checked file.

    Parameters
    ----------
    url
        Address, http or https.
    folder
        Folder for the file, and for the part so far.
    sha256
        Its SHA-256; None for any.
    limit
        Largest size in bytes.
    progress
        Called after each piece.

    Raises
    ------
    ShelfError
        The server can't be reached, or sends an error, HTML, something too large or too slow, or
        another file. The part so far is kept after a cut only.
    """
    if not re.match(r"https?://[^/]", url):
        raise ShelfError(f"{url!r} is not an address: it must begin with https:// or http://")
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    downloader = _Resuming(folder / f"{name}.part", limit, sha256 is not None, progress)
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(
            pooch.retrieve(
                url,
                None if sha256 is None else f"sha256:{sha256}",
                fname=f"{name}.onnx",
                path=folder,
                downloader=downloader,
            )
        )
    except requests.RequestException as error:
        raise ShelfError(f"{url}: {_reason(error)}") from None
    except ValueError as error:
        if isinstance(error, ShelfError):
            raise
        raise ShelfError(
            f"{url} has another SHA-256 than {sha256}: it is not the file that was published"
        ) from None
    except OSError as error:
        raise ShelfError(f"{folder} can't be written: {error.strerror or error}") from None


class _Resuming:
    """A downloader for pooch: appends to a part, which it moves to the wanted place when whole."""

    def __init__(self, part: Path, limit: int, pinned: bool, progress: Progress | None) -> None:
        self._part, self._limit, self._pinned = part, limit, pinned
        self._progress = progress

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        if not self._pinned:  # without a hash, a part of another version would go unnoticed
            self._part.unlink(missing_ok=True)
        try:
            for attempt in range(ATTEMPTS):
                try:
                    self._go_on(url)
                    break
                except _CUT:
                    if attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(PAUSE_S)
        except ShelfError:
            self._part.unlink(missing_ok=True)
            raise
        self._part.replace(output_file)

    def _go_on(self, url: str) -> None:
        """Append what is missing.

        Raises
        ------
        ShelfError
            The answer is useless.
        requests.RequestException
            The connection was cut.
        """
        have = self._part.stat().st_size if self._part.exists() else 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=SILENT_S) as answer:
            if answer.status_code == 416:  # nothing is missing, or the part is of another file
                self._part.unlink(missing_ok=True)
                raise requests.ConnectionError("the part does not fit")
            if not answer.ok:
                raise ShelfError(f"{url}: the server answers {answer.status_code} {answer.reason}")
            kind = answer.headers.get("Content-Type", "")
            if "html" in kind:
                raise ShelfError(f"{url} is a web page, not a file: its type is {kind!r}")
            begins = f"bytes {have}-"
            resumed = answer.headers.get("Content-Range", "").startswith(begins)
            if answer.status_code != 206 or not resumed:
                have = 0
            self._read(url, answer, have)

    def _read(self, url: str, answer: requests.Response, have: int) -> None:
        length = answer.headers.get("Content-Length", "")
        whole = have + int(length) if length.isdigit() else None
        if (whole or 0) > self._limit:
            raise ShelfError(f"{url} has {whole} bytes, more than the {self._limit} expected")
        start, first = time.monotonic(), have
        pieces = answer.iter_content(PIECE)
        begun = next(pieces, b"")  # before the part is created, which then is never empty
        with self._part.open("ab" if have else "wb") as file:
            for piece in chain([begun], pieces):
                if not have and piece.lstrip()[:1] == b"<":
                    raise ShelfError(f"{url} is a web page, not a file")
                have += len(piece)
                if have > self._limit:
                    raise ShelfError(f"{url} has more than the {self._limit} bytes expected")
                file.write(piece)
                if self._progress is not None:
                    self._progress(have, whole)
                passed = time.monotonic() - start
                if passed > SLOW_S and have - first < SLOWEST * passed:
                    raise ShelfError(f"{url} is too slow: {have - first} bytes in {passed:.0f} s")
        if whole is not None and have < whole:
            raise requests.ConnectionError("cut")


def _reason(error: requests.RequestException) -> str:
    """Return why a connection failed, in a few words."""
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return f"no answer within {SILENT_S:.0f} s"
    cause: BaseException = error
    with suppress(AttributeError, IndexError, TypeError):
        cause = error.args[0].reason
    if "refused" in str(cause):
        return "the connection is refused"
    if "resolve" in str(cause) or "Name or service" in str(cause):
        return "there is no such server, or no network"
    return "the connection was cut; the next try goes on from there"
