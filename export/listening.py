"""Make the listening page of the site: ten mixtures, and the stems of every shipped bundle.

python -m export.listening OUT

The material is the project's own and may be shown: the synthetic voices of the demo, computed
noises, and a song of a few bars. ``make docs`` calls it; the site takes in what is in
``build/listening``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from PIL import Image
from rich.progress import track

import rtsep
from export.demo import RATE_HZ, SEED, SENTENCES, SPEECH, car, coloured, fan, keyboard
from rtsep import weights
from rtsep.files.spectrogram import spectrograms
from rtsep.learned.enrolment import enroll
from rtsep.runtime.pipeline import BLOCK
from rtsep.spec import Float32

SECONDS = 6.0
SONG_RATE_HZ = 44100
BEAT_S = 0.55
PEAK = 0.7
TWO_MICROPHONES = ("iva",)
"""Bundles that need two channels; the mixtures have one."""

INTRODUCTION = """# Listen

Ten mixtures, and what each shipped bundle makes of them; where it was made for something else, too.
The voices are synthetic (espeak-ng), and the other sounds computed, so that they may be shown;
`keep` keeps the first voice of each mixture;
[the models](models.md) have the scores on recordings.
"""


@dataclass(frozen=True)
class Mixture:
    """A mixture: its title, its sources by name (n,), and their rate in Hz."""

    title: str
    sources: dict[str, Float32]
    rate_hz: int = RATE_HZ

    @property
    def sound(self) -> Float32:
        """The sum of the sources, (n,)."""
        return np.sum(list(self.sources.values()), axis=0)


def voices() -> list[Float32]:
    """Return the sentences of the demo, one voice each, repeated to `SECONDS`, with RMS 1."""
    speech, _ = soundfile.read(SPEECH, dtype="float32")
    starts = [round(start_s * RATE_HZ) for start_s, *_ in SENTENCES]
    ends = [*starts[1:], len(speech)]
    found = []
    for start, end in zip(starts, ends, strict=True):
        sentence = np.concatenate([speech[start:end], np.zeros(RATE_HZ // 4, np.float32)])
        sound = np.resize(sentence, round(SECONDS * RATE_HZ))
        found.append(sound / np.sqrt(np.mean(np.square(sound))))
    return found


def song(rng: np.random.Generator, singer: Float32) -> dict[str, Float32]:
    """Compute a few bars: drums, a bass, broken chords, and a voice (n,) at `SONG_RATE_HZ`."""
    samples = len(singer)
    stems = {name: np.zeros(samples) for name in ("vocals", "drums", "bass", "other")}
    stems["vocals"] += singer

    def play(stem: str, beat: float, sound: np.ndarray) -> None:
        at = round(beat * BEAT_S * SONG_RATE_HZ)
        part = stems[stem][at : at + len(sound)]
        part += sound[: len(part)]

    def tone(key: int, beats: float, harmonics: int, fall_s: float) -> np.ndarray:
        t = np.arange(round(beats * BEAT_S * SONG_RATE_HZ)) / SONG_RATE_HZ
        hz = 440 * 2 ** ((key - 69) / 12)
        wave = sum(np.sin(2 * np.pi * hz * n * t) / n for n in range(1, harmonics))
        return wave * np.exp(-t / fall_s) * np.minimum(1, (t[-1] - t) / 0.01)

    short = np.arange(SONG_RATE_HZ // 4) / SONG_RATE_HZ
    kick = np.sin(2 * np.pi * (50 * short + 6 * (1 - np.exp(-short / 0.03)))) * np.exp(-short / 0.1)
    noise = rng.standard_normal(len(short))
    beats = int(samples / SONG_RATE_HZ / BEAT_S)
    for beat in range(beats):
        root = (45, 41, 48, 43)[beat // 4 % 4]
        play("drums", beat, 3 * kick if beat % 2 == 0 else noise * np.exp(-short / 0.06))
        for half in (0.0, 0.5):
            hat = np.diff(noise, prepend=0.0) * np.exp(-short / 0.015)
            play("drums", beat + half, 0.4 * hat)
            play("bass", beat + half, tone(root - 12, 0.45, 8, 0.3))
        for step, interval in enumerate((0, 7, 12, 16 if root in (41, 48, 43) else 15)):
            play("other", beat + step / 4, tone(root + 12 + interval, 1.5, 14, 0.4))
    return {name: (x / np.sqrt(np.mean(x**2))).astype(np.float32) for name, x in stems.items()}


def mixtures() -> Iterator[Mixture]:
    """Make the ten mixtures."""
    rng = np.random.default_rng(SEED)
    samples = round(SECONDS * RATE_HZ)
    said = voices()
    noises = {
        "a fan": fan(rng, samples),
        "a keyboard": keyboard(rng, samples),
        "a passing car": car(rng, samples, SECONDS / 2),
        "rain": coloured(rng, samples, 1.5, 400.0),
        "three more voices": 0.6 * np.sum(said[1:], axis=0) / np.sqrt(3),
    }
    for name, noise in noises.items():
        yield Mixture(f"A voice and {name}", {"voice": said[0], name: noise.astype(np.float32)})
    for title, first, second in (
        ("A woman and a man", 0, 1),
        ("Two women", 0, 2),
        ("Two men", 1, 3),
    ):
        yield Mixture(title, {"first": said[first], "second": said[second]})
    singer = np.asarray(soxr.resample(said[2], RATE_HZ, SONG_RATE_HZ), np.float32)
    stems = song(rng, singer)
    yield Mixture("A song", stems, SONG_RATE_HZ)
    music = np.sum([stems[name] for name in ("drums", "bass", "other")], axis=0) / np.sqrt(3)
    yield Mixture("A voice and music", {"voice": singer, "music": 0.6 * music}, SONG_RATE_HZ)


def player(folder: Path, name: str, sound: Float32, rate_hz: int) -> str:
    """Write a sound and return the player of it."""
    soundfile.write(folder / f"{name}.ogg", sound, rate_hz, format="OGG", subtype="VORBIS")
    return f'<audio controls preload="none" src="listening/{name}.ogg"></audio>'


def kept(mixture: Mixture, name: str) -> dict[str, tuple[float, ...]]:
    """Return the control with which a model keeps the first voice, if it can keep one."""
    bundle = weights.find(name)
    if "enroller" not in bundle.metadata:
        return {}
    spoken = next(iter(mixture.sources.values()))
    blocks = (spoken[at : at + BLOCK, None] for at in range(0, len(spoken), BLOCK))
    voice = enroll(bundle, blocks, 1, mixture.rate_hz, len(spoken))
    return {voice.control: voice.values}


def section(mixture: Mixture, number: int, folder: Path) -> str:
    """Separate a mixture with every bundle; return its part of the page."""
    gain = np.float32(PEAK / np.max(np.abs(mixture.sound)))
    rate, sound = mixture.rate_hz, gain * mixture.sound
    lines = [f"## {mixture.title}\n", player(folder, f"{number:02d}", sound, rate) + "\n"]
    for name in weights.names():
        if name in TWO_MICROPHONES:
            continue
        stems = rtsep.separate(sound, rate, name, controls=kept(mixture, name))
        stem = f"{number:02d}-{name}"
        drawn = folder / f"{stem}.png"
        spectrograms(drawn, {"mixture": sound, **stems}, rate, name)
        Image.open(drawn).save(drawn.with_suffix(".webp"), quality=70)  # a tenth of the size
        drawn.unlink()
        players = " | ".join(player(folder, f"{stem}-{k}", x, rate) for k, x in stems.items())
        picture = f"![{name}: {mixture.title}](listening/{stem}.webp)"
        heads = " | ".join(stems)
        rule = " | ".join("---" for _ in stems)
        lines.append(f"### {name}: {mixture.title.lower()}\n")
        lines.append(f"| {heads} |\n| {rule} |\n| {players} |\n\n{picture}\n")
    return "\n".join(lines)


def main() -> None:
    """Write the page, its sounds and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder for the page")
    out = parser.parse_args().out
    (out / "listening").mkdir(parents=True, exist_ok=True)
    every = list(mixtures())
    parts = [
        section(mixture, number, out / "listening")
        for number, mixture in enumerate(track(every, "separating", transient=True), start=1)
    ]
    missing = ", ".join(f"`{name}`" for name in TWO_MICROPHONES)
    note = f"{missing} needs two microphones and is not among them.\n"
    (out / "listening.md").write_text("\n".join([INTRODUCTION, note, *parts]), "utf-8")
    print(f"{out / 'listening.md'}: {len(every)} mixtures")


if __name__ == "__main__":
    main()
