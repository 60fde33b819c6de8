"""Measuring sets for `speech` beyond noise: babble, music, noise alone, clean speech, level steps.

python -m bench.speech_sets --data DATA --out DIR

All sound is of the test split of DATA, 16 kHz mono, and file k depends on k alone, so two runs
write the same files. Folders of DIR:

- ``babble``: speech and four other speakers at once, 0 to 10 dB;
- ``music``: speech and the bass, drums and other instruments of a held-out song, each as loud as
  the others, 0 to 10 dB;
- ``noise``: 10 s of each category of noise, except those in which voices hide, no speech;
- ``clean``: speech alone, two files per speaker;
- ``level_steps``: the mixtures of DATA/bench/speech_noise, 20 dB louder or quieter from the middle
  on; the louder part has the level of the original.

Each has a ``list.csv`` and ``NNN_mixture.flac``; beside a mixture with speech lies
``NNN_speech.flac``, so that ``rtsep eval --data DIR/babble`` reads it. Ratios are those of the
speech without its pauses to all of the other sound.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from rich.progress import Progress

from rtsep.errors import EvaluationError, RtsepError
from rtsep.evaluate.folder import items
from rtsep.files.readers import read_all
from rtsep.spec import Float32
from rtsep.train.corpus import Corpus, Int16
from rtsep.train.layouts import table
from rtsep.train.sound import active_rms, fill, joined, rms

EXAMPLES = """\
examples:
  python -m bench.speech_sets --data DATA --out sets
  python -m bench.speech_sets --data DATA --out quick --mixtures 4
"""
RATE_HZ = 16000
MIXTURES = 40
"""Of babble, and of music."""
SECONDS, NOISE_SECONDS = 6.0, 10.0
SNR_DB = 0.0, 2.5, 5.0, 7.5, 10.0
"""In turns."""
TALKERS = 4
"""Of the babble."""
SPEECH_DB, NOISE_DB = -26.0, -30.0
"""Levels of speech without its pauses, and of noise alone, re full scale."""
PEAK = 0.95
"""Highest sample of a file; what is higher is made quieter as a whole."""
GAP_S = 0.25
"""Between two recordings of one speaker."""
STEP_DB = 20.0
INSTRUMENTS = "bass", "drums", "other"
BABBLE, MUSIC, NOISE, CLEAN, STEPS = "babble", "music", "noise", "clean", "level_steps"
SETS = BABBLE, MUSIC, NOISE, CLEAN, STEPS
"""Folders; the place of a name here seeds its files."""

Made = tuple[dict[str, str], dict[str, Float32]]
"""A row of ``list.csv`` with its ``id``, and the sounds by the last part of their names."""


def talk(clips: list[Int16], rng: Generator) -> Float32:
    """`SECONDS` of one speaker at `SPEECH_DB`."""
    speech = joined(clips, round(SECONDS * RATE_HZ), round(GAP_S * RATE_HZ), RATE_HZ, rng)
    return speech * np.float32(10 ** (SPEECH_DB / 20) / active_rms(speech))


def mixed(speech: Float32, other: Float32, snr_db: float) -> dict[str, Float32]:
    """Add the other sound at a ratio in dB."""
    other = other * np.float32(active_rms(speech) / rms(other) * 10 ** (-snr_db / 20))
    return limited({"mixture": speech + other, "speech": speech})


def limited(sounds: dict[str, Float32]) -> dict[str, Float32]:
    """Make all sounds quieter by the same factor if one is above `PEAK`."""
    peak = max(float(np.max(np.abs(sound))) for sound in sounds.values())
    gain = np.float32(min(1.0, PEAK / max(peak, 1e-9)))
    return {name: gain * sound for name, sound in sounds.items()}


def babble(corpus: Corpus, count: int) -> Iterator[Made]:
    """Speech and `TALKERS` other speakers."""
    speakers = corpus.pool("speech")
    names = sorted(speakers)
    for k in range(count):
        rng, (target, snr_db) = chance(BABBLE, k), turn(names, k)
        others = [name for name in names if name != target]
        chosen = sorted(rng.choice(others, TALKERS, replace=False))
        voices = np.sum([talk(speakers[name], rng) for name in chosen], axis=0)
        row = {"id": f"{k:03}", "speaker": target, "babble": " ".join(chosen)}
        speech = talk(speakers[target], rng)
        yield {**row, "snr_db": f"{snr_db:g}"}, mixed(speech, voices, snr_db)


def music(corpus: Corpus, count: int) -> Iterator[Made]:
    """Speech and the instruments of a song."""
    speakers, songs = corpus.pool("speech"), instrumentals(corpus)
    names, titles = sorted(speakers), sorted(songs)
    for k in range(count):
        rng, (target, snr_db) = chance(MUSIC, k), turn(names, k)
        title = titles[k % len(titles)]
        part = excerpt(songs[title], round(SECONDS * RATE_HZ), rng)
        row = {"id": f"{k:03}", "speaker": target, "song": title, "snr_db": f"{snr_db:g}"}
        yield row, mixed(talk(speakers[target], rng), part, snr_db)


def instrumentals(corpus: Corpus) -> dict[str, Float32]:
    """Sum the instruments of every song, each at the same level."""
    found: dict[str, list[Float32]] = {}
    for role in INSTRUMENTS:
        for title, clips in corpus.pool(role).items():
            stem = np.divide(clips[0], 32768, dtype=np.float32)
            found.setdefault(title, []).append(np.divide(stem, rms(stem), dtype=np.float32))
    lengths = {title: min(map(len, stems)) for title, stems in found.items()}
    return {
        title: np.sum([stem[: lengths[title]] for stem in stems], axis=0)
        for title, stems in found.items()
    }


def excerpt(song: Float32, samples: int, rng: Generator) -> Float32:
    """Cut a random part that is not a pause: at most 10 dB quieter than the song."""
    song = np.resize(song, max(len(song), samples))
    while True:
        start = rng.integers(len(song) - samples + 1)
        part = song[start : start + samples]
        if rms(part) > 10 ** (-10 / 20) * rms(song):
            return part


def noise(corpus: Corpus) -> Iterator[Made]:
    """One file per category."""
    samples = round(NOISE_SECONDS * RATE_HZ)
    for k, (category, clips) in enumerate(sorted(corpus.pool("noise").items())):
        rng = chance(NOISE, k)
        longest = max(clips, key=len)
        long = len(longest) >= samples
        sound = fill(longest, samples, rng) if long else joined(clips, samples, 0, RATE_HZ, rng)
        sound = sound * np.float32(10 ** (NOISE_DB / 20) / rms(sound))
        yield {"id": f"{k:03}", "noise": category}, limited({"mixture": sound})


def clean(corpus: Corpus) -> Iterator[Made]:
    """Two files per speaker."""
    for k, (speaker, clips) in enumerate(sorted(corpus.pool("speech").items()) * 2):
        speech = talk(clips, chance(CLEAN, k))
        yield {"id": f"{k:03}", "speaker": speaker}, limited({"mixture": speech})


def steps(folder: Path) -> Iterator[Made]:
    """Two files per mixture of a folder: louder, and quieter, from the middle on."""
    for item in items(folder):
        sounds = {"mixture": item.mixture, "speech": item.stems["speech"]}
        for name, step_db in (("louder", STEP_DB), ("quieter", -STEP_DB)):
            row = {"id": f"{item.name}_{name}", "of": item.name, "step_db": f"{step_db:g}"}
            made = {part: read_all(path)[0][:, 0] for part, path in sounds.items()}
            for sound in made.values():
                half = slice(0, len(sound) // 2) if step_db > 0 else slice(len(sound) // 2, None)
                sound[half] *= np.float32(10 ** (-STEP_DB / 20))
            yield row, made


def turn(names: list[str], k: int) -> tuple[str, float]:
    """Speaker and ratio of file k; a speaker meets every ratio in turn."""
    again, speaker = divmod(k, len(names))
    return names[speaker], SNR_DB[(k + again) % len(SNR_DB)]


def chance(name: str, k: int) -> Generator:
    """The generator of file k of a set."""
    return np.random.default_rng([SETS.index(name), k])


def write(folder: Path, made: Iterator[Made], done: Callable[[], None]) -> None:
    """Write a set; its list comes last."""
    folder.mkdir(parents=True)
    rows = []
    for row, sounds in made:
        for part, sound in sounds.items():
            path = folder / f"{row['id']}_{part}.flac"
            soundfile.write(path, sound, RATE_HZ, subtype="PCM_24")
        rows.append(row)
        done()
    with (folder / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make(data: Path, out: Path, count: int) -> None:
    """Write all sets.

    Raises
    ------
    RtsepError
        The data lacks something, or ``out`` has sets already.
    """
    if count < 1:
        raise EvaluationError(f"--mixtures must be 1 or more, not {count}")
    for name in SETS:
        if (out / name).exists():
            raise EvaluationError(f"{out / name} exists already: remove it or choose another --out")
    wanted = {"speech", "noise", *INSTRUMENTS}
    rows = [row for row in table(data) if row.split == "test" and row.role in wanted]
    bench = data / "bench" / "speech_noise"
    mixtures = items(bench)
    if not all("speech" in item.stems for item in mixtures):
        raise EvaluationError(f"{bench} has mixtures without NNN_speech.flac")
    corpus = Corpus.load(rows, RATE_HZ)
    speakers, categories = len(corpus.pool("speech")), len(corpus.pool("noise"))
    if speakers <= TALKERS:
        raise EvaluationError(f"{data} has {speakers} test speakers; babble needs {TALKERS + 1}")
    if not categories or not instrumentals(corpus):
        raise EvaluationError(f"{data} has no test {'music' if categories else 'noise'}")
    plan = {
        BABBLE: (babble(corpus, count), count),
        MUSIC: (music(corpus, count), count),
        NOISE: (noise(corpus), categories),
        CLEAN: (clean(corpus), 2 * speakers),
        STEPS: (steps(bench), 2 * len(mixtures)),
    }
    try:
        with Progress(transient=True) as progress:
            for name, (made, total) in plan.items():
                task = progress.add_task(name, total=total)
                write(out / name, made, lambda task=task: progress.advance(task))  # type: ignore[misc]
                print(f"{out / name}: {total} files")
    except OSError as error:
        raise EvaluationError(f"{out} can't be written: {error}") from None


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the audio, with bench/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sets")
    parser.add_argument(
        "--mixtures", type=int, default=MIXTURES, help="of babble, and of music; %(default)s"
    )
    arguments = parser.parse_args()
    try:
        make(arguments.data, arguments.out, arguments.mixtures)
    except RtsepError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
