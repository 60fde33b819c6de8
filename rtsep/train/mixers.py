"""Mixtures made on the fly: speech in noise, several speakers, stems of music.

A mixer is a table of batches. Example ``j`` of batch ``i`` depends only on the seed, ``i`` and
``j``. So a resumed run uses the same data as an uninterrupted one, and several processes that share
a batch use the same data as one process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from rtsep.errors import CorpusError
from rtsep.spec import Float32
from rtsep.train.corpus import STEMS, Corpus, Int16
from rtsep.train.sound import (
    active_rms,
    clipped,
    coloured,
    convolve,
    faded,
    faster,
    fill,
    machine,
    modulated,
    rms,
    room,
    synthetic_noise,
)

ROOMS = 256
"""Simulated rooms of a mixer; each is computed when it is first used."""


@dataclass
class Mixer:
    """Batches of mixtures of one kind.

    Attributes
    ----------
    corpus
        Source of the clips.
    sources
        Names of the mixed sources, in the order of the targets.
    seed
        Seed of the random generator, together with the numbers of batch and example.
    batch_size, samples
        Examples per batch, and samples per example.
    level_db
        Range of the mixture's RMS level in dB re full scale, uniform.
    part
        (k, n): this process makes every n-th example of a batch, from the k-th.
    roles
        Roles of the corpus that are mixed.
    judged
        Number of sources, from the first, that a validation scores; all if None.
    exchangeable
        Whether the order of the targets is arbitrary (speakers).
    measure
        Validation score: ``"SI-SDRi"``, or ``"SNRi"`` if levels matter.

    Raises
    ------
    CorpusError
        The corpus lacks a source, or the names of the sources do not fit this mixer.
    """

    corpus: Corpus
    sources: tuple[str, ...]
    seed: int
    batch_size: int
    samples: int
    level_db: tuple[float, float] = (-45.0, -15.0)
    part: tuple[int, int] = (0, 1)
    _rooms: dict[int, Float32] = field(default_factory=dict, init=False, repr=False)

    roles: ClassVar[tuple[str, ...]]
    judged: ClassVar[int | None] = None
    exchangeable: ClassVar[bool] = False
    measure: ClassVar[str] = "SI-SDRi"

    def __post_init__(self) -> None:
        """Check that the corpus has enough to mix, and fix the order of its keys."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Return a length that training never reaches; the data loader needs one."""
        return 1 << 31

    def __getitem__(self, index: int) -> tuple[Float32, Float32]:
        """Make a batch: mixtures (batch, samples, 1), targets (batch, samples, sources, 1)."""
        made = []
        for example in range(self.batch_size)[self.part[0] :: self.part[1]]:
            rng = np.random.default_rng((self.seed, index, example))
            sources = self._levelled(self.example(rng), rng)
            made.append((self.heard(sources.sum(axis=1), rng), sources))
        mixtures, targets = (np.stack(x)[..., None] for x in zip(*made, strict=True))
        return mixtures.astype(np.float32), targets.astype(np.float32)

    def example(self, rng: Generator) -> Float32:
        """Make one set of sources, (samples, sources), at their relative levels."""
        raise NotImplementedError

    def heard(self, mixture: Float32, _: Generator) -> Float32:
        """Simulate the microphone's faults on a mixture (samples,); the default has none."""
        return mixture

    def _levelled(self, sources: Float32, rng: Generator) -> Float32:
        mixture = sources.sum(axis=1)
        gain = 10 ** (rng.uniform(*self.level_db) / 20) / (rms(mixture) + 1e-6)
        return sources * min(gain, 0.99 / (float(np.max(np.abs(mixture))) + 1e-6))

    def _voice(self, speaker: str, rng: Generator, semitones: float) -> Float32:
        """Sentences of one speaker, (samples,), resampled by up to ``semitones`` up or down."""
        ratio = 2 ** (rng.uniform(-1, 1) * semitones / 12)
        return faster(self._said(speaker, rng, self._needed(ratio)), ratio)[: self.samples]

    def _needed(self, ratio: float) -> int:
        """Return how many samples are needed when played ``ratio`` times as fast."""
        return int(self.samples * max(ratio, 1.0)) + 2

    def _said(self, speaker: str, rng: Generator, samples: int) -> Float32:
        """Sentences of one speaker with pauses; a segment starts anywhere in a sentence."""
        rate, clips = self.corpus.sample_rate, self.corpus.clips["speech"][speaker]
        out = np.zeros(samples, np.float32)
        at = -int(rng.uniform(0, 2.0) * rate)
        while at < samples:
            clip = clips[rng.integers(len(clips))]
            start, stop = max(at, 0), min(at + len(clip), samples)
            if stop > start:
                out[start:stop] = clip[start - at : stop - at]
            at += len(clip) + int(rng.exponential(0.25) * rate)
        return out / np.float32(32768)

    def _in_a_room(self, sound: Float32, rng: Generator) -> Float32:
        """Add reverberation to a quarter of the sounds, of a measured or a simulated room."""
        if rng.random() >= 0.25:
            return sound
        responses = self.corpus.responses
        if responses and rng.random() < 0.3:
            return convolve(sound, responses[rng.integers(len(responses))])
        return convolve(sound, self._room(rng))

    def _room(self, rng: Generator) -> Float32:
        """Response of one of `ROOMS` simulated rooms."""
        number = int(rng.integers(ROOMS))
        if number not in self._rooms:
            made = np.random.default_rng((self.seed, number))
            self._rooms[number] = room(made, self.corpus.sample_rate)
        return self._rooms[number]


def _weights(pool: dict[str, list[Int16]], keys: list[str]) -> np.ndarray:
    """Probabilities of keys; they grow with the length of a key's audio, below proportion."""
    weights = np.sqrt([float(sum(map(len, pool[key]))) for key in keys])
    return np.asarray(weights / weights.sum())


@dataclass
class SpeechInNoise(Mixer):
    """Speech in noise at random levels, rooms and spectral slopes; sources speech, noise.

    Attributes
    ----------
    snr_db
        Range of the speech-to-noise ratio, uniform.
    babble, clipped
        Probabilities that a noise is a crowd of voices, and that the mixture is clipped.
    semitones, noise_semitones
        Largest change of pitch, and with it tempo, of speech and of noise.
    machines, music, grains, events
        Probabilities that a noise is a synthetic machine, music (of categories that begin with
        ``music``), a mosaic of short pieces of several recordings, or a few single loud sounds.
    several
        Probability that another noise is added, up to three in all.
    wet
        Probability that a noise is convolved with a room response.
    steps
        Probability that the level of the mixture changes abruptly, by up to 20 dB.
    silent, clean
        Probabilities of noise alone and of speech alone.
    """

    snr_db: tuple[float, float] = (-6.0, 16.0)
    babble: float = 0.08
    clipped: float = 0.02
    semitones: float = 2.0
    noise_semitones: float = 9.0
    machines: float = 0.0
    music: float = 0.0
    grains: float = 0.0
    events: float = 0.0
    several: float = 0.25
    wet: float = 0.0
    steps: float = 0.0
    silent: float = 0.03
    clean: float = 0.02

    roles: ClassVar[tuple[str, ...]] = ("speech", "noise", "room")
    judged: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        """Fix the order of speakers and categories."""
        if len(self.sources) != 2:
            raise CorpusError(f"speech in noise is 2 sources, not {len(self.sources)}")
        speech, noise = self.corpus.pool("speech"), self.corpus.pool("noise")
        if not speech or not noise:
            raise CorpusError("the corpus has no usable speech or no usable noise")
        self._speakers = sorted(speech)
        self._songs = sorted(key for key in noise if key.startswith("music"))
        self._categories = sorted(noise.keys() - self._songs) or self._songs
        self._weights = _weights(speech, self._speakers)
        self._category_weights = _weights(noise, self._categories)
        self._kinds = (
            (0.15, self._synthetic),
            (self.babble, self._crowd),
            (self.machines, self._machine),
            (self.music if self._songs else 0.0, self._tune),
            (self.grains, self._mosaic),
            (self.events, self._single_sounds),
        )

    def example(self, rng: Generator) -> Float32:
        """Make one pair of sources (samples, 2): speech, noise."""
        speaker = self._speakers[rng.choice(len(self._speakers), p=self._weights)]
        voice = self._voice(speaker, rng, self.semitones)
        speech = coloured(self._in_a_room(voice, rng), rng, 4.0)
        noise = self._noise(rng)
        level = max(rms(noise), 0.3 * active_rms(noise)) + 1e-6
        gain = 10 ** (-rng.uniform(*self.snr_db) / 20) * active_rms(speech) / level
        noise *= min(gain, 1e3)
        kind = rng.random()
        if kind < self.silent:
            speech[:] = 0.0
        elif kind < self.silent + self.clean:
            noise *= 0.001
        sources = np.stack([speech, noise], axis=1)
        if rng.random() < self.steps:
            at = int(rng.integers(1, self.samples))
            sources[at:] *= np.float32(10 ** (rng.uniform(-20, 20) / 20))
        return sources

    def heard(self, mixture: Float32, rng: Generator) -> Float32:
        """Clip some mixtures, as an overloaded input does."""
        return clipped(mixture, rng) if rng.random() < self.clipped else mixture

    def _noise(self, rng: Generator) -> Float32:
        out = np.zeros(self.samples, np.float32)
        for number in range(3):
            if number and rng.random() >= self.several:
                break
            part = self._one_noise(rng)
            if self.wet and rng.random() < self.wet:
                part = convolve(part, self._room(rng))
            level = max(rms(part), 0.3 * active_rms(part)) + 1e-6
            out += part * np.float32(10 ** (rng.uniform(-6, 6) / 20) / level)
        if rng.random() < 0.1:  # the noise rises or falls
            ramp = np.linspace(rng.uniform(-20, 6), rng.uniform(-20, 6), self.samples)
            out *= (10 ** (ramp / 20)).astype(np.float32)
        return coloured(out, rng, 6.0)

    def _one_noise(self, rng: Generator) -> Float32:
        kind = rng.random()
        for share, make in self._kinds:
            if kind < share:
                return make(rng)
            kind -= share
        return self._recording(self._category(rng), rng)

    def _category(self, rng: Generator) -> str:
        return self._categories[rng.choice(len(self._categories), p=self._category_weights)]

    def _recording(self, category: str, rng: Generator) -> Float32:
        clips = self.corpus.clips["noise"][category]
        ratio = 2 ** (rng.uniform(-1, 1) * self.noise_semitones / 12)
        part = fill(clips[rng.integers(len(clips))], self._needed(ratio), rng)
        return faster(part, ratio)[: self.samples][:: rng.choice([1, 1, 1, -1])]

    def _tune(self, rng: Generator) -> Float32:
        clips = self.corpus.clips["noise"][self._songs[rng.integers(len(self._songs))]]
        ratio = 2 ** (rng.uniform(-1, 1) * 2.0 / 12)
        return faster(fill(clips[rng.integers(len(clips))], self._needed(ratio), rng), ratio)[
            : self.samples
        ]

    def _synthetic(self, rng: Generator) -> Float32:
        x = synthetic_noise(rng, self.samples, self.corpus.sample_rate)
        return modulated(x, rng, self.corpus.sample_rate) if rng.random() < self.grains else x

    def _machine(self, rng: Generator) -> Float32:
        x = machine(rng, self.samples, self.corpus.sample_rate)
        return modulated(x, rng, self.corpus.sample_rate) if rng.random() < 0.5 else x

    def _piece(self, rng: Generator, seconds: tuple[float, float], loudest: bool) -> Float32:
        """Cut a short piece from any recording, at random or from its loudest point on."""
        clips = self.corpus.clips["noise"][self._category(rng)]
        clip = clips[rng.integers(len(clips))]
        rate = self.corpus.sample_rate
        length = min(int(rng.uniform(*seconds) * rate), len(clip), self.samples)
        start = int(rng.integers(len(clip) - length + 1))
        if loudest:
            part = clip[start : start + 10 * rate]
            start += max(int(np.argmax(np.abs(part.astype(np.int32)))) - rate // 50, 0)
            start = min(start, len(clip) - length)
        x = faded(np.divide(clip[start : start + length], 32768, dtype=np.float32), rate)
        return x * np.float32(10 ** (rng.uniform(-8, 8) / 20) / (rms(x) + 1e-4))

    def _mosaic(self, rng: Generator) -> Float32:
        """Join short pieces of a few recordings, each used several times."""
        pieces = [self._piece(rng, (0.04, 0.8), False) for _ in range(rng.integers(2, 7))]
        out, at = np.zeros(self.samples, np.float32), 0
        overlap = self.corpus.sample_rate // 250
        while at < self.samples:
            piece = pieces[rng.integers(len(pieces))][: self.samples - at]
            out[at : at + len(piece)] += piece
            at += max(len(piece) - overlap, 1)
        return out

    def _single_sounds(self, rng: Generator) -> Float32:
        out = np.zeros(self.samples, np.float32)
        same = self._piece(rng, (0.05, 0.7), True) if rng.random() < 0.5 else None
        for _ in range(rng.integers(1, 2 + 2 * self.samples // self.corpus.sample_rate)):
            piece = self._piece(rng, (0.05, 0.7), True) if same is None else same
            at = int(rng.integers(self.samples - len(piece) + 1))
            out[at : at + len(piece)] += piece
        return out

    def _crowd(self, rng: Generator) -> Float32:
        """Make babble: many voices at once, in a room."""
        out = np.zeros(self.samples, np.float32)
        for _ in range(rng.integers(3, 12)):
            voice = self._said(self._speakers[rng.integers(len(self._speakers))], rng, self.samples)
            out += voice * (10 ** (rng.uniform(-6, 0) / 20) / (active_rms(voice) + 1e-4))
        return convolve(out, self._room(rng))


@dataclass
class Speakers(Mixer):
    """One speaker per source, all of them different, in random rooms.

    A mixture contains at most one speaker whose identity is uncertain.

    Attributes
    ----------
    range_db
        Largest difference of a speaker's level from the first speaker's, uniform.
    semitones
        Largest change of pitch, and with it tempo, of each voice.
    """

    range_db: float = 5.0
    semitones: float = 1.5

    roles: ClassVar[tuple[str, ...]] = ("speech", "room")
    exchangeable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Fix the order of the speakers."""
        pool, count = self.corpus.pool("speech"), len(self.sources)
        self._labelled = sorted(pool.keys() - self.corpus.unlabelled)
        self._all = sorted(pool)
        if count < 2 or len(self._labelled) < count - 1 or len(self._all) < count:
            raise CorpusError(
                f"{count} speakers at once cannot be mixed from {len(self._labelled)} labelled and "
                f"{len(self._all) - len(self._labelled)} unlabelled ones"
            )
        self._labelled_weights = _weights(pool, self._labelled)
        self._all_weights = _weights(pool, self._all)

    def speakers(self, rng: Generator) -> list[str]:
        """Draw different speakers, one per source."""
        count = len(self.sources)
        sure = rng.choice(self._labelled, count - 1, replace=False, p=self._labelled_weights)
        weights = np.where(np.isin(self._all, sure), 0.0, self._all_weights)
        who = [*sure, rng.choice(self._all, p=weights / weights.sum())]
        return [str(who[i]) for i in rng.permutation(count)]

    def example(self, rng: Generator) -> Float32:
        """Make one set of speakers (samples, sources)."""
        voices = []
        for index, speaker in enumerate(self.speakers(rng)):
            voice = self._in_a_room(self._voice(speaker, rng, self.semitones), rng)
            voice = coloured(voice, rng, 3.0)
            level_db = rng.uniform(-self.range_db, self.range_db) if index else 0.0
            voices.append(voice * (0.1 * 10 ** (level_db / 20) / (active_rms(voice) + 1e-4)))
        return np.stack(voices, axis=1)


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


MIXERS: dict[str, type[Mixer]] = {
    "speech": SpeechInNoise,
    "speakers": Speakers,
    "music": Music,
}
"""Mixers by the ``kind`` in a recipe's mixtures."""
