"""``rtsep separate``: separate files with the live engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Unpack

import click
import numpy as np
from rich.markup import escape
from rich.progress import Progress

from rtsep.cli import fail
from rtsep.cli.options import Choice, choose, model_options, read_all, stem_options
from rtsep.errors import AudioFileError, LearnedError, SpecError
from rtsep.files.readers import AudioInfo, blocks, info, stem_path
from rtsep.files.writers import StemWriter
from rtsep.learned.decoder import UPDATES, Penalty, fit
from rtsep.learned.frames import magnitudes, masked
from rtsep.learned.source import alike
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import StemOptions
from rtsep.runtime.pipeline import BLOCK, LoadedModel, aligned
from rtsep.spec import Float32

Reading = Callable[[], Iterator[Float32]]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the stems; created if missing.",
)
@model_options
@stem_options
@click.option(
    "--full-fit",
    is_flag=True,
    help="Fit --sources to each whole file, as in the papers: better and slower.",
)
@click.option(
    "--crossing",
    type=click.FloatRange(0.0, 100.0),
    default=0.0,
    help="Penalty of a full fit on two sources active at once; 0.",
)
def separate(
    files: tuple[Path, ...],
    output: Path,
    full_fit: bool,
    crossing: float,
    full_band: bool,
    floor_db: float | None,
    **choice: Unpack[Choice],
) -> None:
    """Separate FILES into one file per source, OUTPUT/<name>_<source>.wav.

    Runs the live engine as fast as the machine allows. Stems have the input's length, rate and
    channels and are aligned with it. Files that can't be read are named and skipped; the exit code
    is then 2.

    \b
    Examples:
      rtsep separate talk.wav -o stems/
      rtsep separate talk.wav -o stems/ --floor -20
      rtsep separate *.flac -o stems/ --model my-model.onnx
      rtsep separate talk.wav -o stems/ --sources me.rtsep,fan.rtsep --full-fit
    """  # noqa: D301
    options = StemOptions(full_band, floor_db)
    separator: Streamed | FullFit
    if full_fit:
        separator = FullFit(choice, crossing, options)
    else:
        separator = Streamed(choose(choice), options)
    failed = 0
    done: dict[str, Path] = {}
    with Progress() as progress:
        for path in files:
            try:
                other = done.setdefault(path.stem, path)
                if other is not path:
                    raise AudioFileError(
                        f"{path} and {other} would have the same stems: use another folder"
                    )
                _separate(path, output, separator, progress)
            except (AudioFileError, LearnedError, SpecError) as error:
                fail(error if isinstance(error, AudioFileError) else f"{path}: {error}")
                failed += 1
                if done.get(path.stem) is path:
                    del done[path.stem]
    if failed:
        if len(files) > 1:
            fail(f"{failed} of {len(files)} files failed")
        click.get_current_context().exit(2)


class Streamed:
    """Separates with a bundle in the live engine."""

    def __init__(self, bundle: Bundle, options: StemOptions) -> None:
        self._bundle, self._options = bundle, options
        self.sources, self.passes = bundle.spec.sources, 1

    def stems(self, read: Reading, audio: AudioInfo) -> Iterator[Float32]:
        """Yield the stems in parts, (n, sources, channels)."""
        loaded = LoadedModel(self._bundle, audio.channels, self._options)
        yield from aligned(loaded.engine(audio.rate_hz), read())


class FullFit:
    """Separates by fitting learned sources to whole recordings."""

    def __init__(self, choice: Choice, crossing: float, options: StemOptions) -> None:
        others = choice["model"], choice["rest"], choice["learn_noise"]
        self._learned = read_all(choice["sources"] or "") if not any(others) else []
        if len(self._learned) < 2:
            raise LearnedError("--full-fit is for two or more --sources, and no other option")
        self._spec, self._penalty = alike(self._learned), Penalty(crossing=crossing)
        self.sources, self.passes, self._options = self._spec.sources, 2, options

    def stems(self, read: Reading, audio: AudioInfo) -> Iterator[Float32]:
        """Read the file for the fit, then again to yield the stems, (n, sources, channels)."""
        shape = self._spec, audio.channels, audio.rate_hz
        decoders = [source.decoder for source in self._learned]
        masks = [fit(x, decoders, UPDATES, self._penalty) for x in magnitudes(read(), *shape)]
        yield from masked(read(), *shape, np.stack(masks), self._options)


def _separate(path: Path, folder: Path, separator: Streamed | FullFit, progress: Progress) -> None:
    audio = info(path)
    paths = [stem_path(folder, path, source) for source in separator.sources]
    task = progress.add_task(escape(path.name), total=separator.passes * audio.length)

    def read() -> Iterator[Float32]:
        for mixture in blocks(path, BLOCK):
            yield mixture
            progress.advance(task, len(mixture))

    try:
        with StemWriter(paths, audio.rate_hz, audio.channels) as writer:
            for part in separator.stems(read, audio):
                writer.write(part)
    finally:
        progress.remove_task(task)
    progress.console.print(
        f"{path.name} → {', '.join(str(p) for p in paths)}",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )
