"""Add models to the user's folder, and remove them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock

from rtsep import weights
from rtsep.adopt.adoption import adopt, check
from rtsep.adopt.card import write
from rtsep.adopt.description import Description
from rtsep.adopt.network import open_model
from rtsep.errors import ShelfError
from rtsep.runtime.bundle import MAX_BYTES, Bundle, load
from rtsep.runtime.model_step import make_step
from rtsep.shelf.download import Progress, download
from rtsep.shelf.table import PublishedFile, about, published

WAIT_S = 600.0
"""Longest time to wait for another process that adds or removes a model."""
_NAME = re.compile(r"\w[\w.-]{0,63}")
_DOWNLOADS = ".downloads"


def add(
    target: str,
    name: str | None = None,
    description: Description | None = None,
    sha256: str | None = None,
    offline: bool = False,
    tell: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> Path:
    """Add a model; return the path of its bundle.

    Parameters
    ----------
    target
        Name in the table, an ONNX file (several: separated by commas), or an address.
    name
        Name of the model; by default that in the table or of the file.
    description
        See `rtsep.adopt.adoption.adopt`.
    sha256
        SHA-256 of the file at an address.
    offline
        Refuse what needs the network.
    tell
        Called with licence, size and latency before a download.
    progress
        See `rtsep.shelf.download.download`.

    Raises
    ------
    ShelfError
        The name is invalid or taken, there is no such model, or the download failed.
    AdoptError, BundleError
        The file can't be run.
    """
    row = published().get(target)
    is_address = "://" in target
    paths = [] if row or is_address else [Path(part) for part in target.split(",")]
    for path in paths:
        if not path.is_file():
            names = ", ".join(published())
            raise ShelfError(f"{path} is neither a file, an address nor a known model ({names})")
    name = _checked(name or (target if row else Path(target.split(",")[0]).stem))
    with _locked() as folder:
        final = folder / f"{name}.onnx"
        if final.exists():
            raise ShelfError(f"{name} is there already: rtsep models remove {name} removes it")
        if not paths:
            if offline:
                raise ShelfError(f"{target} must be downloaded, but --offline forbids it")
            files = row.files if row else [PublishedFile(target, sha256 or "", MAX_BYTES)]
            tell(about(name, row) if row else f"{name}: licence unknown, from {target}")
            paths = _downloaded(files, folder / _DOWNLOADS, progress)
            try:
                write(_bundle(paths, name, description), final)
            finally:  # reached after a whole download only: a part stays, to go on with
                shutil.rmtree(folder / _DOWNLOADS, ignore_errors=True)
        else:
            write(_bundle(paths, name, description), final)
    return final


def remove(name: str) -> None:
    """Remove a model that was added.

    Raises
    ------
    ShelfError
        There is none of this name, or it can't be removed.
    """
    if name in weights.names():
        raise ShelfError(f"{name} is part of rtsep and can't be removed")
    with _locked() as folder:
        if name not in weights.added():
            there = ", ".join(weights.added()) or "none"
            raise ShelfError(f"no model {name!r} was added; there are: {there}")
        try:
            (folder / f"{name}.onnx").unlink()
            (folder / f"{name}.md").unlink(missing_ok=True)
        except OSError as error:
            raise ShelfError(f"{name} can't be removed: {error.strerror}") from None


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ShelfError(f"{name!r} is not a valid name: letters, digits, '-', '_' and '.' are")
    if name in weights.names():
        raise ShelfError(f"{name} is the name of a shipped model: choose another with --as")
    return name


@contextmanager
def _locked() -> Iterator[Path]:
    """Yield the folder of added models while no other process changes it."""
    folder = weights.folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock", timeout=WAIT_S):
            yield folder
    except filelock.Timeout:
        raise ShelfError(f"another process has been changing {folder} for long") from None
    except OSError as error:
        raise ShelfError(f"{folder} can't be written: {error.strerror or error}") from None


def _downloaded(
    files: Sequence[PublishedFile], folder: Path, progress: Progress | None
) -> list[Path]:
    """Download all files; give each the name that its address has."""
    paths = []
    for number, file in enumerate(files):
        got = download(file.url, folder, file.sha256 or None, file.bytes, progress)
        named = folder / str(number) / (file.url.rpartition("/")[2].partition("?")[0] or "file")
        named.parent.mkdir(exist_ok=True)
        got.replace(named)
        paths.append(named)
    return paths


def _bundle(paths: Sequence[Path], name: str, description: Description | None) -> Bundle:
    """Return the bundle in a file, or that made of graphs by others."""
    if len(paths) == 1 and description is None:
        keys = {p.key for p in open_model(paths[0]).metadata_props}
        if "rtsep.format" in keys:
            bundle = load(paths[0])
            make_step(bundle)
            return bundle
    bundle = adopt(paths, name, description)
    check(bundle)
    return bundle
