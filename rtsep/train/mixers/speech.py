"""Mixtures of speech and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.random import Generator

from rtsep.errors import CorpusError
from rtsep.spec import Float32
from rtsep.train.mixers.mixer import Mixer, probabilities
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
    synthetic_noise,
)


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
    tilted
        Probability that a random equaliser colours the speech, and that one colours the noise.
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
    tilted: float = 1.0

    roles: ClassVar[tuple[str, ...]] = ("speech", "noise", "room")
    judged: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        """Fix the order of speakers and categories."""
        self._check_sources()
        speech, noise = self.corpus.pool("speech"), self.corpus.pool("noise")
        if not speech or not noise:
            raise CorpusError("the corpus has no usable speech or no usable noise")
        self._speakers = sorted(speech)
        self._songs = sorted(key for key in noise if key.startswith("music"))
        self._categories = sorted(noise.keys() - self._songs) or self._songs
        self._weights = probabilities(speech, self._speakers)
        self._category_weights = probabilities(noise, self._categories)
        self._kinds = (
            (0.15, self._synthetic),
            (self.babble, self._crowd),
            (self.machines, self._machine),
            (self.music if self._songs else 0.0, self._tune),
            (self.grains, self._mosaic),
            (self.events, self._single_sounds),
        )

    def _check_sources(self) -> None:
        if len(self.sources) != 2:
            raise CorpusError(f"speech in noise is 2 sources, not {len(self.sources)}")

    def example(self, rng: Generator) -> Float32:
        """Make one pair of sources (samples, 2): speech, noise."""
        speaker = self._speakers[rng.choice(len(self._speakers), p=self._weights)]
        voice = self._voice(speaker, rng, self.semitones)
        speech = self._tilt(self._in_a_room(voice, rng), rng, 4.0)
        noise = self._noise(rng)
        level = max(rms(noise), 0.3 * active_rms(noise)) + 1e-6
        gain = 10 ** (-rng.uniform(*self.snr_db) / 20) * active_rms(speech) / level
        noise *= min(gain, 1e3)
        kind = rng.random()
        if kind < self.silent:
            speech[:] = 0.0
        elif kind < self.silent + self.clean:
            noise *= 0.001
        return self._stepped(np.stack([speech, noise], axis=1), rng)

    def _stepped(self, sources: Float32, rng: Generator) -> Float32:
        """Change the level of some sources abruptly."""
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
        return self._tilt(out, rng, 6.0)

    def _tilt(self, sound: Float32, rng: Generator, range_db: float) -> Float32:
        if self.tilted < 1.0 and rng.random() >= self.tilted:
            return sound
        return coloured(sound, rng, range_db)

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
