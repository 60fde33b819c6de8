"""Make ``docs/demo.png``, the picture of the README: spectrograms of the demo and its stems.

``python -m export.picture [OUT.png]``
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

import rtsep
from rtsep.devices.open import DEMO
from rtsep.files.atomic import replacing
from rtsep.files.readers import read_all
from rtsep.files.spectrogram import spectrograms

TARGET = Path(__file__).parents[1] / "docs" / "demo.png"
COLOURS = 128
"""Number of colours; halves the size of the file without a visible difference."""


def main(target: Path = TARGET) -> None:
    """Write the picture."""
    mixture, rate = read_all(DEMO)
    stems = rtsep.separate(mixture, rate)
    latency = rtsep.load().latency
    title = f"speech without its noise, {latency.ms:.0f} ms late"
    spectrograms(target, {"mixture": mixture, **stems}, rate, title)
    with Image.open(target) as picture, replacing(target) as part:
        few = picture.convert("RGB").quantize(
            COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        few.save(part, "PNG", optimize=True)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
