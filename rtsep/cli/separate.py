"""``rtsep separate``: files through the live engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from rich.markup import escape
from rich.progress import Progress

from rtsep import weights
from rtsep.bundle import Bundle
from rtsep.cli import fail
from rtsep.io.files import AudioFileError, blocks, info, stem_path
from rtsep.io.stems import StemWriter
from rtsep.offline import BLOCK, aligned, engine_for
from rtsep.separator import Separator
from rtsep.spec import Float32, SpecError


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
                fail(error if isinstance(error, AudioFileError) else f"{path}: {error}")
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
    engine = engine_for(step, spec, audio.channels, audio.rate_hz)
    paths = [stem_path(folder, path, source) for source in spec.sources]
    task = progress.add_task(escape(path.name), total=audio.length)

    def read() -> Iterator[Float32]:
        for mixture in blocks(path, BLOCK):
            yield mixture
            progress.advance(task, len(mixture))

    try:
        with StemWriter(paths, audio.rate_hz, audio.channels) as writer:
            for part in aligned(engine, read()):
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
