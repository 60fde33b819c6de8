"""``rtsep separate``: files through the live engine."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from rich.markup import escape
from rich.progress import Progress

from rtsep import weights
from rtsep.bundle import Bundle
from rtsep.cli import fail
from rtsep.engine import Engine
from rtsep.io.files import AudioFileError, StemWriter, blocks, info, stem_path
from rtsep.resample import around
from rtsep.separator import Separator
from rtsep.spec import SpecError

BLOCK = 1 << 14
"""Samples read at once."""


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the stems; made if missing.",
)
@click.option("-m", "--model", help="Shipped model's name, or a bundle's path.")
def separate(files: tuple[Path, ...], output: Path, model: str | None) -> None:
    """Separate FILES into one file per source, OUTPUT/<name>_<source>.wav.

    The same engine as live, as fast as it goes: stems have the input's length, rate and channels
    and line up with it. A file that can't be read is named and left out; the others are done, and
    the exit code is 2.

    \b
    Examples:
      rtsep separate talk.wav -o stems/
      rtsep separate *.flac -o stems/ --model my-model.onnx
    """  # noqa: D301
    bundle = weights.find(model)
    failed = 0
    done: dict[str, Path] = {}
    with Progress() as progress:
        for path in files:
            try:
                other = done.setdefault(path.stem, path)
                if other is not path:
                    raise AudioFileError(
                        f"{path} would get the same names as {other}: use another folder"
                    )
                _separate(path, output, bundle, progress)
            except (AudioFileError, SpecError) as error:
                fail(error)
                failed += 1
                if done.get(path.stem) is path:
                    del done[path.stem]
    if failed:
        if len(files) > 1:
            fail(f"{failed} of {len(files)} files failed")
        click.get_current_context().exit(2)


def _separate(path: Path, folder: Path, bundle: Bundle, progress: Progress) -> None:
    spec, audio = bundle.spec, info(path)
    step = Separator(bundle, spec.streams(audio.channels))
    engine = around(
        lambda block: Engine(step, spec, audio.channels, block), audio.rate_hz, spec.sample_rate
    )
    paths = [stem_path(folder, path, source) for source in spec.sources]
    task = progress.add_task(escape(path.name), total=audio.length)
    stems = np.zeros((BLOCK, len(spec.sources), audio.channels), np.float32)
    try:
        with StemWriter(paths, audio.rate_hz, audio.channels) as writer:
            late = engine.latency_samples
            for mixture in blocks(path, BLOCK):
                part = engine.process(mixture, stems[: len(mixture)])
                skipped = min(late, len(part))
                late -= skipped
                writer.write(part[skipped:])
                progress.advance(task, len(mixture))
            writer.write(engine.flush()[late:])
    finally:
        progress.remove_task(task)
    progress.console.print(
        f"{path.name} → {', '.join(str(p) for p in paths)}",
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )
