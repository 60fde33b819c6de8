"""Measuring set for `music` beside the songs of one artist: songs rendered from held-out scores.

python -m bench.music_set --sources DIR --out DIR

Scores, sound font and singer are those of the test split of `export.songs`, which training never
uses; the folder of the sources is filled as for `export.more_data`, whose packages it needs, too.
Every song has four stems, 30 s and 44.1 kHz mono, within 3 dB of each other. ``rtsep eval --data
OUT`` reads it.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import soundfile

from export.notation import Score
from export.singing import RATE
from export.songs import Band, Song, band, compose, scores
from rtsep.errors import EvaluationError, RtsepError
from rtsep.train.corpus import STEMS

EXAMPLES = """\
examples:
  python -m bench.music_set --sources sources --out rendered
  python -m bench.music_set --sources sources --out quick --songs 2
"""
SEED = 30
SONGS = 10
PEAK = 0.95


def complete(usable: list[Score], chance: random.Random) -> Song:
    """Compose a song in which everybody plays."""
    while True:
        song = compose(chance.choice(usable), chance)
        if song.melody and song.bass and song.other and song.drums[9]:
            return song


def make(players: Band, usable: list[Score], out: Path, count: int) -> None:
    """Write the songs, each in a folder of its own.

    Raises
    ------
    EvaluationError
        ``out`` exists already or can't be written.
    """
    try:
        out.mkdir(parents=True)
        chance = random.Random(SEED)
        songs = [complete(usable, chance) for _ in range(count)]
        for number, stems in enumerate(players.play(songs, chance)):
            folder = out / f"song_{number:02d}"
            folder.mkdir()
            gains = {stem: 10 ** (chance.uniform(-1.5, 1.5) / 20) for stem in STEMS}
            scaled = {stem: np.float32(gains[stem]) * stems[stem] for stem in STEMS}
            mixture = np.sum(list(scaled.values()), axis=0)
            gain = np.float32(min(1.0, PEAK / float(np.max(np.abs(mixture)))))
            for name, sound in {"mixture": mixture, **scaled}.items():
                soundfile.write(folder / f"{name}.flac", gain * sound, RATE, subtype="PCM_24")
            print(f"{folder}: {', '.join(STEMS)}")
    except OSError as error:
        raise EvaluationError(f"{out} can't be written: {error}") from None


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sources", type=Path, required=True, help="folder of the sources")
    parser.add_argument("--out", type=Path, required=True, help="folder for the songs")
    parser.add_argument("--songs", type=int, default=SONGS, help="how many; %(default)s")
    arguments = parser.parse_args()
    try:
        if arguments.songs < 1:
            raise EvaluationError(f"--songs must be 1 or more, not {arguments.songs}")
        players = band("test", arguments.sources)
        make(players, scores("test", arguments.sources), arguments.out, arguments.songs)
    except (RtsepError, FileNotFoundError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
