"""``rtsep learn``: learn one source from seconds of its sound."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from rich.progress import Progress

from rtsep.cli.recording import recorded
from rtsep.errors import LearnedError
from rtsep.files.readers import blocks, info
from rtsep.learned.frames import magnitudes
from rtsep.learned.learn import Plan, check
from rtsep.learned.learn import learn as fit
from rtsep.learned.source import MODELS, Source, check_name, stream, write
from rtsep.runtime.pipeline import BLOCK
from rtsep.spec import Float32, Spec

MAX_S = 600.0
"""Longest training sound in seconds; more improves little and takes long."""


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False), metavar="OUT.rtsep")
@click.option(
    "--from",
    "first",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE...",
    help="Recordings of this source alone.",
)
@click.argument("more", nargs=-1, type=click.Path(path_type=Path), metavar="")
@click.option(
    "-d", "--device", metavar="IN", help="Record from this device, like --device of `rtsep run`."
)
@click.option(
    "-s",
    "--seconds",
    type=click.FloatRange(0.0, MAX_S, min_open=True),
    default=20.0,
    help="Duration of the recording; 20.",
)
@click.option("--name", help="Name of the source; by default that of OUT.")
@click.option(
    "-m",
    "--model",
    type=click.Choice(list(MODELS)),
    default="nmf",
    help="Model of the source; nmf.",
)
@click.option(
    "-k", "--rank", type=click.IntRange(min=1), default=40, help="Activations per frame; 40."
)
@click.option(
    "--updates",
    type=click.IntRange(1, 100_000),
    help="Number of updates; by default that of the model.",
)
@click.option("--sparsity", type=click.FloatRange(0.0, 100.0), help="Penalty of the activations.")
@click.option(
    "--smallness",
    type=click.FloatRange(0.0, 100.0),
    default=0.0,
    help="Penalty of an auto-encoder's weights; 0.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31), default=0, help="Seed of the random initialisation; 0."
)
@click.option(
    "--rate", type=click.IntRange(1000, 192_000), default=16000, help="Sample rate in Hz; 16000."
)
@click.option(
    "--window", type=click.IntRange(16, 16384), default=512, help="Window in samples; 512."
)
@click.option("--hop", type=click.IntRange(min=1), default=128, help="Hop in samples; 128.")
def learn(
    out: Path,
    first: tuple[Path, ...],
    more: tuple[Path, ...],
    device: str | None,
    seconds: float,
    name: str | None,
    model: str,
    rank: int,
    updates: int | None,
    sparsity: float | None,
    smallness: float,
    seed: int,
    rate: int,
    window: int,
    hop: int,
) -> None:
    """Learn a source from seconds of its sound alone and write it to OUT.

    Sources learned with the same --rate, --window and --hop can be combined with `rtsep run
    --sources` and `rtsep separate --sources`. The auto-encoders (nae, nae-deep, ccae, rcae) need
    torch; nmf and cnmf do not.

    \b
    Examples:
      rtsep learn fan.rtsep --device default --seconds 20
      rtsep learn voice.rtsep --from me1.wav me2.wav
      rtsep learn voice.rtsep --from me1.wav --model nae --rank 100
    """  # noqa: D301
    files = [*first, *more]
    if bool(files) == (device is not None):
        raise LearnedError("give the sound to learn from: either --from FILE... or --device")
    spec = stream(check_name(name or out.stem), rate, window, hop)
    own = -1.0 if sparsity is None else sparsity
    plan = Plan(model, rank, updates or 0, own, smallness, seed)
    with Progress(transient=True) as progress:
        if device is None:
            x, samples = _read(files, spec)
            told = f"{len(files)} recording{'s' if len(files) > 1 else ''}"
        else:
            x, samples = _record(device, seconds, spec, progress)
            told = "a microphone"
        check(x, samples, spec, rank)
        task = progress.add_task(f"learning {spec.sources[0]}", total=plan.count())
        decoder, _ = fit(x, plan, lambda: progress.advance(task))
    told = f"{model}, rank {rank}, {samples / rate:.1f} s of {told}"
    write(Source(spec.sources[0], model, decoder, spec, told), out)
    click.echo(f"{out}: {told}, {out.stat().st_size / 1000:.0f} kB")


def _read(files: list[Path], spec: Spec) -> tuple[Float32, int]:
    """Return the magnitudes of all channels of all files, joined, and the number of samples."""
    found: list[Float32] = []
    samples = 0
    for path in files:
        audio = info(path)
        samples += round(audio.length * spec.sample_rate / audio.rate_hz)
        if samples > MAX_S * spec.sample_rate:
            raise LearnedError(f"the recordings exceed {MAX_S:.0f} s: use fewer")
        x = magnitudes(blocks(path, BLOCK), spec, audio.channels, audio.rate_hz)
        found.extend(x)
    return np.concatenate(found), samples


def _record(query: str, seconds: float, spec: Spec, progress: Progress) -> tuple[Float32, int]:
    """Record from a device; return the magnitudes and the number of samples."""
    pieces, rate = recorded(query, seconds, progress)
    samples = sum(map(len, pieces)) * spec.sample_rate // rate
    x = magnitudes(pieces, spec, pieces[0].shape[1], rate)
    return np.concatenate(list(x)), samples
