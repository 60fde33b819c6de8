"""Render songs with four stems from scores: to train models of music, and to measure them.

The scores and the sound fonts are those of `export.scores`; works and fonts of val and test are
never used in train. Bass and drums are played by the font or by recordings of single notes and
strokes. Vocals are speech with the pitch of the melody, see `export.singing`, or, in test, recorded
notes of a singer.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pedalboard
import pyworld
import soxr

from export.clips import SEED, Audio, Source, Table
from export.notation import Score, read
from export.scores import (
    BASSES,
    CHORDS,
    FONTS,
    LEAD,
    PROGRAMS,
    TOGETHER,
    Track,
    drummed,
    excerpt,
    held_out,
    performed,
    render,
)
from export.singing import RATE, SECONDS, Notes, Speaker, decoded
from rtsep.train.corpus import STEMS

COUNTS = {"train": 180, "val": 10}
"""Songs of each split."""
LEVEL = 0.08
"""RMS of a stem where it is louder than a hundredth of its peak."""

ELECTRIC_BASSES = tuple(range(32, 40))
OTHERS = [program for program in PROGRAMS if program not in ELECTRIC_BASSES]
BASS_NOTES = (
    Source(
        "sfzinstruments+dsmolken.double-bass",
        "bass",
        "pizz/pizz_*.wav",
        "CC0-1.0",
        "Double bass: D. Smolken, dsmolken.double-bass. CC0 1.0.",
    ),
    Source(
        "sfzinstruments+karoryfer.growlybass",
        "bass",
        "sustain/*.wav",
        "CC0-1.0",
        "Bass guitar: Karoryfer Samples, Growlybass. CC0 1.0.",
    ),
)
KIT = Source(
    "freepats+muldjordkit",
    "drums",
    "samples/*/*.flac",
    "CC-BY-4.0",
    "Drums: MuldjordKit by Lars Muldjord, adapted for FreePats. CC BY 4.0.",
)
STROKES = {
    35: ("KdrumL",),
    36: ("KdrumR",),
    37: ("SnareRest1", "SnareRest2"),
    38: ("Snare1",),
    39: ("Snare2",),
    40: ("Snare1", "Snare2"),
    42: ("HihatClosed",),
    46: ("HihatOpen",),
    49: ("CrashL", "CrashR"),
    51: ("RideL", "RideR"),
    70: ("HihatClosed",),
}
"""Folders of the kit by the key of General MIDI; keys above 40 are cymbals, recorded too loud."""
VOICES = {
    "train": Source(
        "rhasspy+dataset-voice-kerstin",
        "vocals",
        "verified/*.flac",
        "CC0-1.0",
        "Vocals: Kerstin's speech (Rhasspy), with other pitch and formants. CC0 1.0.",
    ),
    "val": Source(
        "hugolpz+audio-cmn",
        "vocals",
        "64k/syllabs/*.mp3",
        "CC-BY-SA-3.0",
        "Vocals: syllables, (c) 2013 Chen Wang (voice), Hugo Lopez, Nicolas Vion; with other pitch "
        "and formants. CC BY-SA 3.0.",
    ),
}
SINGER = Source(
    "vocobox+human-voice-dataset",
    "vocals",
    "data/voices/martin/notes/exports/mono/*.wav",
    "MIT",
    "Vocals: notes of the human voice dataset, (c) 2014 vocobox. MIT.",
    tuple(f"{note}-ko" for note in ("D2", "D#2")),
)

Singer = Callable[[Notes, random.Random], Audio]
"""Sings a melody: samples of `SECONDS`."""


@dataclass
class Song:
    """Who plays what.

    Attributes
    ----------
    drums, bass, other
        Tracks for the sound font.
    melody
        Notes for the singer; none in an instrumental.
    """

    drums: list[Track | None] = field(default_factory=lambda: [None] * 10)
    bass: list[Track | None] = field(default_factory=list)
    other: list[Track | None] = field(default_factory=list)
    melody: Notes = field(default_factory=list)


def compose(score: Score, chance: random.Random) -> Song:
    """Give the parts of a score to a singer, a bass, drums and other instruments."""
    chosen, song = excerpt(score, chance, SECONDS), Song()
    heights = [sum(midi for *_, midi in part) / len(part) for part in score.parts]
    order = sorted(range(len(heights)), key=heights.__getitem__)
    low = order[0] if len(order) > 1 or heights[0] < 55 else None
    sung = order[-1] if order[-1] != low and chance.random() < 0.75 else None
    room = chance.choice((0, 20, 40, 70))
    for index, part in enumerate(chosen.parts[:8]):
        if index == low:
            shift = 12 * round((40 - heights[index]) / 12)
            notes = performed(part, shift, chance)
            song.bass.append(Track(chance.choice(ELECTRIC_BASSES), notes, 0))
            continue
        if index == sung:
            song.melody = performed(part, 0, chance)
            if chance.random() < 0.75:
                continue
        pool = CHORDS if score.tune and index == 1 else OTHERS
        octave = 0 if chance.random() < 0.6 else chance.choice((-12, 12))
        notes = performed(part, octave, chance)
        for program in chance.sample(pool, 2 if chance.random() < 0.25 else 1):
            if program not in BASSES or heights[index] < 60:
                song.other.append(Track(program, notes, room, chance.randint(70, 120)))
    song.other = song.other[:9]  # the tenth channel is for drums
    if chance.random() < 0.9:
        song.drums[9] = drummed(score.quarters, chosen.quarter, SECONDS, chance)
    return song


@dataclass
class Recorded:
    """Plays notes by recordings of single ones, resampled from the nearest pitch."""

    pitches: np.ndarray
    clips: list[Audio]

    @classmethod
    def load(cls, source: Source, sources: Path) -> Recorded:
        """Read recordings; their pitch is estimated, since names count octaves differently."""
        pitches, clips = [], []
        for path in source.files(sources):
            clip = decoded(path)[: 4 * RATE]
            pitch, _ = pyworld.dio(clip.astype(np.float64), RATE, f0_floor=30.0, f0_ceil=700.0)
            if np.count_nonzero(pitch) > 10:
                pitches.append(69 + 12 * np.log2(np.median(pitch[pitch > 0]) / 440))
                clips.append(clip)
        return cls(np.array(pitches), clips)

    def __call__(self, notes: Notes, chance: random.Random) -> Audio:
        """Play; notes out of range move by octaves."""
        out = np.zeros(round(SECONDS * RATE), np.float32)
        middle = float(np.median(self.pitches))
        for at, length, key, loud in notes:
            pitch = key + 12 * round((middle - key) / 12) if abs(key - middle) > 14 else key
            near = np.flatnonzero(abs(self.pitches - pitch) < abs(self.pitches - pitch).min() + 0.7)
            index = int(chance.choice(near.tolist()))
            ratio = 2 ** ((pitch - self.pitches[index]) / 12)
            clip = self.clips[index][: round((length + 0.1) * RATE * ratio)]
            clip = np.asarray(soxr.resample(clip, ratio, 1.0, "LQ"), np.float32)
            clip = clip / (np.max(np.abs(clip)) + 1e-6) * np.float32((loud / 127) ** 1.5)
            _add(out, _ended(clip), at)
        return out


def strike(track: Track, strokes: dict[str, list[Audio]], chance: random.Random) -> Audio:
    """Play a track of drums by recorded strokes; the first of each folder are the softest."""
    out = np.zeros(round(SECONDS * RATE), np.float32)
    sides = {key: chance.choice(folders) for key, folders in STROKES.items()}
    for at, _, key, loud in track.notes:
        clips = strokes[sides[key]]
        index = round(loud / 127 * (len(clips) - 1)) + chance.randint(-2, 2)
        clip = clips[min(max(index, 0), len(clips) - 1)][:RATE]
        _add(out, _ended(clip * np.float32(loud / 100 * (0.3 if key > 40 else 1.0))), at)
    return out


def _add(out: Audio, clip: Audio, at: float) -> None:
    start = round((at + LEAD) * RATE)
    clip = clip[: max(len(out) - start, 0)]
    out[start : start + len(clip)] += clip


def _ended(clip: Audio) -> Audio:
    """Fade the last 60 ms out, of a copy."""
    n = min(len(clip) // 2, RATE * 60 // 1000)
    clip[len(clip) - n :] *= np.linspace(1, 0, n, dtype=np.float32)
    return clip


def _effects(stem: str, chance: random.Random) -> pedalboard.Pedalboard:
    """Draw the effects of a stem."""
    likely = {
        "vocals": (0.0, 0.15, 0.7, 0.1, 0.6),
        "drums": (0.05, 0.0, 0.5, 0.1, 0.4),
        "bass": (0.25, 0.1, 0.5, 0.3, 0.0),
        "other": (0.15, 0.3, 0.3, 0.2, 0.5),
    }[stem]
    made = (
        pedalboard.Distortion(drive_db=chance.uniform(6, 25)),
        pedalboard.Chorus(rate_hz=chance.uniform(0.3, 2), depth=chance.uniform(0.1, 0.4)),
        pedalboard.Compressor(
            threshold_db=chance.uniform(-30, -12), ratio=chance.uniform(2, 6), attack_ms=5
        ),
        pedalboard.LowpassFilter(cutoff_frequency_hz=2 ** chance.uniform(10, 13.5)),
        pedalboard.Reverb(
            room_size=chance.uniform(0.1, 0.7), wet_level=chance.uniform(0.05, 0.25), dry_level=0.6
        ),
    )
    draws = [chance.random() < share for share in likely]
    return pedalboard.Pedalboard(
        [effect for effect, drawn in zip(made, draws, strict=True) if drawn]
    )


@dataclass
class Band:
    """All that songs of one split are made with.

    Attributes
    ----------
    font
        Sound font.
    singer
        Sings melodies; None for instrumentals only.
    basses, strokes
        Recorded notes and strokes that may take the place of the font.
    """

    font: Path
    singer: Singer | None = None
    basses: list[Recorded] = field(default_factory=list)
    strokes: dict[str, list[Audio]] = field(default_factory=dict)

    def play(self, songs: list[Song], chance: random.Random) -> Iterator[dict[str, Audio]]:
        """Render songs: stems of `SECONDS`, levelled; what nobody plays is missing."""
        clips = [clip for song in songs for clip in (song.drums, song.bass, song.other)]
        rendered = render(clips, self.font, SECONDS, RATE)
        for song in songs:
            stems = {"drums": next(rendered), "bass": next(rendered), "other": next(rendered)}
            drums = song.drums[9]
            if self.strokes and drums is not None and chance.random() < 0.5:
                stems["drums"] = strike(drums, self.strokes, chance)
            if self.basses and song.bass and song.bass[0] is not None and chance.random() < 0.5:
                stems["bass"] = chance.choice(self.basses)(song.bass[0].notes, chance)
            if self.singer is not None and song.melody:
                stems["vocals"] = self.singer(song.melody, chance)
            yield {
                stem: _levelled(_effects(stem, chance)(stems[stem], RATE))
                for stem in STEMS
                if stem in stems and np.max(np.abs(stems[stem])) > 1e-3
            }


def _levelled(audio: Audio) -> Audio:
    loud = np.abs(audio) > 0.01 * np.max(np.abs(audio))
    gain = LEVEL / (float(np.sqrt(np.mean(np.square(audio[loud])))) + 1e-9)
    return np.asarray(audio * min(gain, 0.95 / float(np.max(np.abs(audio)))), np.float32)


def band(split: str, sources: Path) -> Band:
    """Gather what the songs of a split are made with.

    Raises
    ------
    FileNotFoundError
        The sound font is not there.
    """
    fonts = FONTS[split].files(sources)
    if not fonts:
        raise FileNotFoundError(f"{FONTS[split].folder} is needed for songs of {split}")
    if split == "test":
        return Band(fonts[0], Recorded.load(SINGER, sources))
    paths = VOICES[split].files(sources)
    made = Band(fonts[0], Speaker(paths) if paths else None)
    if split == "train":
        made.basses = [Recorded.load(source, sources) for source in BASS_NOTES]
        made.basses = [one for one in made.basses if one.clips]
        found = sorted(KIT.files(sources), key=lambda path: int(path.stem.split("-")[0]))
        for path in found:
            made.strokes.setdefault(path.parent.name, []).append(decoded(path))
    return made


def scores(split: str, sources: Path) -> list[Score]:
    """Return the scores of a split."""
    every = read(sources)
    held = held_out(every, random.Random(SEED))
    return [score for score in every if held.get(score.work, "train") == split]


def songs(sources: Path, table: Table) -> None:
    """Add rendered songs, `COUNTS` of each split."""
    for split, count in COUNTS.items():
        try:
            players = band(split, sources)
        except FileNotFoundError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        chance = random.Random(SEED)
        usable = scores(split, sources)
        kinds = [[score for score in usable if score.tune is tune] for tune in (False, True)]
        chosen = [compose(chance.choice(kinds[n % 2]), chance) for n in range(count)]
        credits_ = [FONTS[split], VOICES[split]]
        credits_ += [*BASS_NOTES, KIT] if split == "train" else []
        for begin in range(0, count, TOGETHER):
            made = players.play(chosen[begin : begin + TOGETHER], chance)
            for number, stems in enumerate(made, start=begin):
                table.add_song(f"rendered_{number:03d}", stems, credits_, split)
            print(f"songs {split}: {min(begin + TOGETHER, count)} of {count}", flush=True)
