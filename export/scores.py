"""Render scores to instrumental music, used as noise.

The scores are those of `export.notation`; sometimes drums are added. Random instruments of General
MIDI without voices are rendered by ``fluidsynth``; the training split uses one sound font, val and
test use another and other scores.
"""

from __future__ import annotations

import random
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from export.clips import NOISE_SECONDS, SEED, Audio, Source, Table, levelled, levels, prepare
from export.notation import Score, corpus, read

LENGTHS = {"train": 90, "val": 5, "test": 5}
"""Length of each split in minutes."""
FONTS = {
    "train": Source(
        "fluid-soundfont-gm",
        "music_rendered",
        "usr/share/sounds/sf2/FluidR3_GM.sf2",
        "MIT",
        "Rendered music, train: sound font Fluid R3 GM, (c) 2000-2002, 2008 Frank Wen, (c) 2008 "
        "Toby Smithe. MIT. Scores: public domain, from the corpus of music21 (Michael Scott Asato "
        "Cuthbert and cuthbertLab; chorales encoded by Margaret Greentree, www.jsbchorales.net, "
        "Ryan's Mammoth Collection by Ray Davies).",
    )
}
FONTS["val"] = FONTS["test"] = Source(
    "timgm6mb-soundfont",
    "music_rendered",
    "usr/share/sounds/sf2/TimGM6mb.sf2",
    "GPL-2.0-only",
    "Rendered music, val and test: sound font TimGM6mb, (c) 2004 Tim Brechbill, 2010 David Bolton. "
    "GPL 2. Scores: as for train.",
)

VOCAL = {52, 53, 54, 85, 91}
PROGRAMS = [n for n in range(113) if n not in VOCAL] + [114]
BASSES = [*range(32, 40), 42, 43, 58, 70]
CHORDS = [*range(0, 8), 15, 16, 18, 19, *range(21, 32), 45, 46, 48, 50, 62, 88, 89, 104, 105]
KITS = (0, 8, 16, 24, 25, 32, 40)
BEATS: dict[int, tuple[tuple[str, str, str], ...]] = {
    4: (
        ("x.......x.......", "....x.......x...", "x.x.x.x.x.x.x.x."),
        ("x..x....x.x.....", "....x.......x..x", "xxxxxxxxxxxxxxxx"),
        ("x...x...x...x...", "....x.......x...", "..x...x...x...x."),
        ("x.....x...x.....", "....x..x.x..x...", "x.x.x.x.x.x.x.xx"),
        ("x.........x.....", "........x.......", "x..xx..xx..xx..x"),
    ),
    3: (
        ("x...........", "....x...x...", "x.x.x.x.x.x."),
        ("x.....x.....", "........x...", "x...x...x..x"),
    ),
}
"""Patterns of kick, snare and cymbal in sixteenths, by the quarters of a bar."""
PAUSE = 4.0
"""Seconds between clips that are rendered together."""
TOGETHER = 15
"""Clips per call of the renderer, because loading a sound font takes long."""
TICKS = 960
"""MIDI ticks per second."""
LEAD = 0.02
"""Seconds before the first note of a clip."""


@dataclass
class Track:
    """A MIDI channel: a program, and notes as (onset s, length s, pitch, velocity)."""

    program: int
    notes: list[tuple[float, float, int, int]]
    room: int = 40
    volume: int = 100


@dataclass
class Excerpt:
    """A passage of a score at a tempo and in a key.

    Attributes
    ----------
    quarter
        Length of a quarter in seconds.
    parts
        Onset and length in seconds and MIDI pitch of the notes of each part.
    """

    quarter: float
    parts: list[list[tuple[float, float, int]]]


def excerpt(score: Score, chance: random.Random, seconds: float) -> Excerpt:
    """Choose a passage, a tempo and a key at random; a short piece is repeated."""
    usual = median(length for part in score.parts for _, length, _ in part)
    quarter = min(max(chance.uniform(0.15, 0.45) / usual, 0.25), 1.2)
    bars = score.length / score.quarters
    start = chance.randrange(max(int(bars - seconds / quarter / score.quarters), 0) + 1)
    shift = chance.randint(-5, 5)
    placed = Excerpt(quarter, [])
    for part in score.parts:
        notes = [
            ((at + (turn * bars - start) * score.quarters) * quarter, length * quarter, key + shift)
            for turn in range(3)
            for at, length, key in part
        ]
        placed.parts.append([note for note in notes if 0 <= note[0] < seconds])
    return placed


def arrange(score: Score, chance: random.Random, seconds: float) -> list[Track | None]:
    """Make an excerpt of a score with random instruments, tempo, key and drums.

    Returns
    -------
    list
        At most 16 tracks; the tenth is drums or None.
    """
    chosen = excerpt(score, chance, seconds)
    room = chance.choice((0, 20, 40, 70, 110))
    tracks: list[Track] = []
    for index, part in enumerate(score.parts[:7]):
        low = sum(midi for *_, midi in part) / len(part) < 53
        pool = BASSES if low and chance.random() < 0.7 else PROGRAMS
        pool = CHORDS if score.tune and index == 1 else pool
        octave = 0 if low or chance.random() < 0.6 else chance.choice((-12, 12))
        notes = performed(chosen.parts[index], octave, chance)
        programs = chance.sample(pool, 2 if chance.random() < 0.2 else 1)
        volume = chance.randint(70, 120)
        tracks += [Track(program, notes, room, volume) for program in programs]
    placed: list[Track | None] = [*tracks[:9]]
    placed += [None] * (9 - len(placed))
    drums = None
    if chance.random() < 0.55:
        drums = drummed(score.quarters, chosen.quarter, seconds, chance)
    return [*placed, drums, *tracks[9:15]]


def performed(
    part: list[tuple[float, float, int]], shift: int, chance: random.Random
) -> list[tuple[float, float, int, int]]:
    """Play notes as a person does: onset s, length s, pitch and velocity vary."""
    short, loud = chance.choice((1.0, 1.0, 0.9, 0.6)), chance.randint(65, 110)
    notes = []
    for at, length, midi in part:
        pitch = midi + shift
        pitch -= 12 * (pitch > 100) - 12 * (pitch < 28)
        at = max(at + chance.gauss(0, 0.006), 0)
        velocity = min(max(loud + chance.randint(-12, 12), 30), 127)
        notes.append((at, max(length * short, 0.06), pitch, velocity))
    return notes


def drummed(quarters: int, quarter: float, seconds: float, chance: random.Random) -> Track:
    """Play a random pattern of drums on a random kit."""
    step = quarter / 4 if quarter > 0.45 else quarter / 2
    pattern = chance.choice(BEATS[quarters])
    keys = (
        chance.choice((35, 36)),
        chance.choice((37, 38, 39, 40)),
        chance.choice((42, 46, 51, 70)),
    )
    loud = chance.randint(70, 115)
    notes = []
    for index in range(int(seconds / step)):
        for row, pitch in zip(pattern, keys, strict=True):
            if row[index % len(row)] == "x" and chance.random() < 0.95:
                second = max(index * step + chance.gauss(0, 0.005), 0)
                notes.append((second, 0.1, pitch, loud + chance.randint(-12, 12)))
        if index % (8 * len(pattern[0])) == 0 and chance.random() < 0.5:
            notes.append((index * step, 0.1, 49, loud))
    return Track(chance.choice(KITS), notes, 30)


def midi(clips: list[list[Track | None]], seconds: float) -> bytes:
    """Write clips as a MIDI file, separated by `PAUSE`."""
    events: list[tuple[float, int, bytes]] = []
    for clip, tracks in enumerate(clips):
        start = clip * (seconds + PAUSE)
        for channel, track in enumerate(tracks):
            if track is None:
                continue
            controls = ((120, 0), (7, track.volume), (91, track.room), (93, 0))
            events += [(start, 0, bytes((0xB0 | channel, *control))) for control in controls]
            events.append((start, 1, bytes((0xC0 | channel, track.program))))
            for at, length, pitch, loud in track.notes:
                off = min(at + length, seconds)
                events.append((start + LEAD + at, 3, bytes((0x90 | channel, pitch, loud))))
                events.append((start + LEAD + off, 2, bytes((0x80 | channel, pitch, 0))))
        # Sounds that never end by themselves would keep the renderer busy for ever.
        end = start + seconds + PAUSE - 0.1
        events += [(end, 4, bytes((0xB0 | channel, 120, 0))) for channel in range(16)]
    events.sort(key=lambda event: event[:2])
    ticks = [0, *(round(at * TICKS) for at, *_ in events)]
    steps = (after - before for before, after in pairwise(ticks))
    body = b"".join(_number(step) + event[2] for step, event in zip(steps, events, strict=True))
    body += b"\x00\xff\x2f\x00"
    head = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS // 2)  # 120 beats a minute, the default
    return head + struct.pack(">4sI", b"MTrk", len(body)) + body


def _number(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


def render(
    clips: list[list[Track | None]], font: Path, seconds: float, rate: int = 32000
) -> Iterator[Audio]:
    """Render clips with a sound font, in mono."""
    with tempfile.TemporaryDirectory() as folder:
        score, wave = Path(folder, "score.mid"), Path(folder, "score.wav")
        score.write_bytes(midi(clips, seconds))
        command = ["fluidsynth", "-niq", "-r", str(rate), "-g", "0.3", "-O", "float", "-T", "wav"]
        command += ["-F", str(wave), str(font), str(score)]
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, stdout=quiet, stderr=quiet, timeout=900)
        audio, _ = soundfile.read(wave, dtype="float32", always_2d=True)
    mono = audio.mean(axis=1)
    for clip in range(len(clips)):
        start = round(clip * (seconds + PAUSE) * rate)
        yield mono[start : start + round(seconds * rate)]


def held_out(scores: list[Score], chance: random.Random) -> dict[str, str]:
    """Return the split, val or test, of the works that are not for training."""
    works = sorted({score.work for score in scores})
    chance.shuffle(works)
    return {work: ("val", "test")[n % 2] for n, work in enumerate(works[: len(works) // 5])}


def music(sources: Path, table: Table) -> None:
    """Add rendered music, `LENGTHS` of each split."""
    scores = read(sources)
    chance = random.Random(SEED)
    held = held_out(scores, chance)
    for split, minutes in LENGTHS.items():
        font = FONTS[split]
        paths = font.files(sources)
        if not paths:
            continue
        usable = [score for score in scores if held.get(score.work, "train") == split]
        composed = [score for score in usable if not score.tune]
        tunes = [score for score in usable if score.tune]
        count = round(60 * minutes / NOISE_SECONDS)
        chosen = [chance.choice(composed if n % 2 else tunes) for n in range(count)]
        for begin in range(0, count, TOGETHER):
            batch = chosen[begin : begin + TOGETHER]
            clips = [arrange(score, chance, NOISE_SECONDS) for score in batch]
            rendered = render(clips, paths[0], NOISE_SECONDS)
            for score, wave in zip(batch, rendered, strict=True):
                audio = prepare(wave, 32000)
                if np.max(np.abs(audio)) > 0.001 and np.mean(levels(audio) > -80) > 0.8:
                    original = score.path.relative_to(corpus(sources)).as_posix()
                    table.add("music", levelled(audio), font, f"music21 {original}", split)
        print(f"music {split} done", flush=True)
