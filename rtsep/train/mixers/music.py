"""Mixtures of the stems of music, also for a model with a control that chooses stems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.random import Generator

from rtsep.errors import CorpusError
from rtsep.spec import Float32
from rtsep.train.corpus import STEMS, Int16
from rtsep.train.mixers.mixer import Mixer
from rtsep.train.sound import active_rms, faster


@dataclass
class Music(Mixer):
    """Stems of the same or of different songs, and stems composed of single notes and strokes.

    Stems are first scaled to the same level, since raw levels differ by 12 dB, then varied.

    Attributes
    ----------
    gain_db
        Range of each stem's level, uniform.
    together, composed, silent
        Probabilities that all stems come from the same passage of one song, that a stem is composed
        of pieces (if there are any), and that a stem is silent.
    semitones
        Largest change of pitch, and with it tempo; the same for all stems of one song.
    """

    gain_db: tuple[float, float] = (-10.0, 4.0)
    together: float = 0.3
    composed: float = 0.25
    silent: float = 0.1
    semitones: float = 2.0

    roles: ClassVar[tuple[str, ...]] = (*STEMS, *(f"{stem} piece" for stem in STEMS))
    measure: ClassVar[str] = "SNRi"  # the level of a quiet stem matters

    def __post_init__(self) -> None:
        """Fix the order of the songs."""
        unknown = sorted(set(self.sources) - set(STEMS))
        if unknown:
            raise CorpusError(f"there is no stem {unknown[0]!r}; there are: {', '.join(STEMS)}")
        self._songs = {stem: sorted(self.corpus.pool(stem)) for stem in self.sources}
        missing = [
            stem for stem, songs in self._songs.items() if not songs and not self._kinds(stem)
        ]
        if missing:
            raise CorpusError(f"the corpus has no usable audio of {', '.join(missing)}")
        self._any_song = sorted(set().union(*self._songs.values()))

    def example(self, rng: Generator) -> Float32:
        """Make one set of stems (samples, sources)."""
        ratio, place = 2 ** (rng.uniform(-1, 1) * self.semitones / 12), rng.random()
        song = None
        if self._any_song and rng.random() < self.together:
            song = self._any_song[rng.integers(len(self._any_song))]
        stems = [self._stem(stem, song, ratio, place, rng) for stem in self.sources]
        quiet = rng.random(len(stems)) < self.silent
        quiet[rng.integers(len(stems))] = False  # at least one plays
        for sound, off in zip(stems, quiet, strict=True):
            level = 0.1 * 10 ** (rng.uniform(*self.gain_db) / 20)
            sound *= 0.0 if off else level / max(active_rms(sound), 1e-3)
        return np.stack(stems, axis=1)

    def _kinds(self, stem: str) -> list[str]:
        return sorted(self.corpus.pool(f"{stem} piece"))

    def _stem(
        self, stem: str, song: str | None, ratio: float, place: float, rng: Generator
    ) -> Float32:
        """Make one stem (samples,): from ``song`` at ``place`` (0 to 1), any song, or pieces."""
        if song is not None:
            clips = self.corpus.pool(stem).get(song)
            return self._cut(clips[0], ratio, place) if clips else np.zeros(self.samples, "f4")
        songs, kinds = self._songs[stem], self._kinds(stem)
        if kinds and (not songs or rng.random() < self.composed):
            clips = self.corpus.clips[f"{stem} piece"][kinds[rng.integers(len(kinds))]]
            return self._compose(clips, rng)
        clips = self.corpus.clips[stem][songs[rng.integers(len(songs))]]
        own = 2 ** (rng.uniform(-1, 1) * self.semitones / 12)
        return self._cut(clips[rng.integers(len(clips))], own, rng.random())

    def _cut(self, clip: Int16, ratio: float, place: float) -> Float32:
        needed = self._needed(ratio)
        start = int(place * max(len(clip) - needed, 0))
        out = faster(clip[start : start + needed], ratio)[: self.samples]
        return np.pad(out, (0, self.samples - len(out))).astype(np.float32) / np.float32(32768)

    def _compose(self, clips: list[Int16], rng: Generator) -> Float32:
        """Repeat a bar of eight beats of transposed pieces, at 80 to 160 beats per minute."""
        out = np.zeros(self.samples, np.float32)
        eighth = round(30 / rng.uniform(80, 160) * self.corpus.sample_rate)
        few = [clips[i] for i in rng.integers(len(clips), size=4)]
        few = [faster(clip, 2 ** (rng.integers(-3, 4) / 12)) for clip in few]
        bar = np.where(rng.random(8) < 0.6, rng.integers(len(few), size=8), -1)
        bar[rng.integers(8)] = 0
        loud = rng.uniform(0.5, 1.0, 8)
        for beat, at in enumerate(range(-int(rng.integers(eighth)), self.samples, eighth)):
            if bar[beat % 8] >= 0:
                clip = few[bar[beat % 8]][max(-at, 0) :][: self.samples - max(at, 0)]
                out[max(at, 0) :][: len(clip)] += clip * np.float32(loud[beat % 8] / 32768)
        return out


@dataclass
class ChosenStem(Music):
    """Mixtures of all stems of which one is to be separated, chosen at random by the control.

    The sources are the chosen stem and the rest; batches have a third part, the control ``stem``,
    (batch, stems): 1 for the chosen one.
    """

    stems: tuple[str, ...] = STEMS

    judged: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        """Mix all stems in place of the two sources."""
        if len(self.sources) != 2:
            raise CorpusError(f"two sources are chosen stem and rest, not {self.sources}")
        self.sources = tuple(self.stems)
        super().__post_init__()

    def __getitem__(self, index: int) -> Any:
        """Make a batch: mixtures, targets (batch, samples, 2, 1), and the control."""
        mixtures, stems = super().__getitem__(index)
        examples = range(self.batch_size)[self.part[0] :: self.part[1]]
        # Numbers of their own, after those with which an example is made.
        rngs = [np.random.default_rng((self.seed, index, example, 1)) for example in examples]
        chosen = np.array([rng.integers(len(self.stems)) for rng in rngs])
        control = np.eye(len(self.stems), dtype=np.float32)[chosen]
        one = np.take_along_axis(stems, chosen[:, None, None, None], axis=2)
        targets = np.concatenate([one, stems.sum(axis=2, keepdims=True) - one], axis=2)
        return mixtures, targets, {"stem": control}
