"""``rtsep enroll``: make the voice that `rtsep run --keep` keeps."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from rich.progress import Progress

from rtsep import weights
from rtsep.cli.recording import recorded
from rtsep.errors import LearnedError
from rtsep.files.readers import blocks, info
from rtsep.learned.enrolment import enroll as describe
from rtsep.learned.kept_voice import write
from rtsep.runtime.pipeline import BLOCK

DEFAULT = "keep"
"""Name of the shipped model that keeps a voice."""
LONGEST_S = 120.0


@click.command()
@click.argument("recording", type=click.Path(path_type=Path), required=False)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="OUT.voice",
    help="File for the voice.",
)
@click.option(
    "-d", "--device", metavar="IN", help="Record from this device, like --device of `rtsep run`."
)
@click.option(
    "-s",
    "--seconds",
    type=click.FloatRange(2.0, LONGEST_S),
    default=10.0,
    help="Duration of the recording; 10.",
)
@click.option("-m", "--model", default=DEFAULT, help=f"Model that is to keep the voice; {DEFAULT}.")
def enroll(
    recording: Path | None, out: Path, device: str | None, seconds: float, model: str
) -> None:
    """Describe the voice of a RECORDING of one person alone, and write it to OUT.voice.

    `rtsep run --keep OUT.voice` then keeps this voice; other voices and noise are the rest.

    \b
    Examples:
      rtsep enroll me.wav -o me.voice
      rtsep enroll --device default --seconds 10 -o me.voice
    """  # noqa: D301
    if (recording is None) == (device is None):
        raise LearnedError("give the voice: either a recording or --device")
    bundle = weights.find(model)
    if recording is not None:
        audio = info(recording)
        if audio.length > LONGEST_S * audio.rate_hz:
            raise LearnedError(f"{recording} exceeds {LONGEST_S:.0f} s: use a part of it")
        voice = describe(
            bundle, blocks(recording, BLOCK), audio.channels, audio.rate_hz, audio.length
        )
    else:
        with Progress(transient=True) as progress:
            pieces, rate = recorded(str(device), seconds, progress)
        samples = sum(map(len, pieces))
        voice = describe(bundle, pieces, np.atleast_2d(pieces[0]).shape[1], rate, samples)
    write(voice, out)
    click.echo(f"{out}: for {voice.model}; rtsep run --keep {out}")
