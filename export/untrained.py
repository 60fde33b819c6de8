"""Make the bundles that need no training: export, measure, write the card.

python -m export.untrained isa|iva|repet --data DATA

`iva` is measured on simulated rooms: two test speakers, a metre from two microphones that are 5 cm
apart, reverberation times of 0.15 to 0.3 s. `repet` and `isa` are measured on the songs of
DATA/bench/music: their vocals or drums, and the sum of their other stems.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyroomacoustics
from numpy.random import Generator

from export.card import card
from rtsep.api import separate
from rtsep.evaluate.bss_eval import bss_eval
from rtsep.evaluate.folder import items
from rtsep.evaluate.metrics import snr_db
from rtsep.files.readers import read_all
from rtsep.models.checkpoint import Description
from rtsep.nn.onnx import export, write
from rtsep.runtime.bundle import load
from rtsep.spec import Float32, Spec
from rtsep.train.corpus import Corpus
from rtsep.train.layouts import table

WEIGHTS = Path(__file__).parent.parent / "rtsep" / "weights"
ROOMS, ROOM_S, LEARNING_S = 16, 15.0, 5.0
"""Number and length of the mixtures of `iva`, and their beginnings, which do not count."""
REVERBERATION_S = 0.15, 0.2, 0.25, 0.3
"""In turns."""
SPACING_M = 0.05

MADE = {
    "isa": Description(
        "isa",
        "isa",
        Spec(44100, 1, "stft", "hann", 2048, 512, 1, 0, ("beats", "rest"), synthesis_length=1024),
        training={"data": "Not trained: it learns from the sound itself, while it runs."},
    ),
    "iva": Description(
        "iva",
        "iva",
        Spec(16000, 2, "stft", "hann", 2048, 256, 1, 0, ("voice1", "voice2"), synthesis_length=512),
        training={"data": "Not trained: it learns from the sound itself, while it runs."},
    ),
    "repet": Description(
        "repet",
        "repet",
        Spec(44100, 1, "stft", "hann", 4096, 1024, 1, 0, ("voice", "music"), synthesis_length=2048),
        training={"data": "Not trained: it compares the sound with its own past."},
    ),
}
LIMITS = {
    "isa": """What is mostly quiet and briefly loud is taken for beats, so are plucked strings and \
hard consonants; cymbals that ring and soft drums are not. In the first seconds all is the rest.""",
    "iva": """Two voices, two microphones on one clock. It needs about five seconds of both, and \
again when somebody moves. Chance decides which voice is first. A third voice, noise from \
everywhere and long reverberation stay in both.""",
    "repet": """What repeats within ten seconds is taken for music, all else for voice, so are \
solos and new chords; a voice that repeats itself is taken for music. In the first seconds all is \
music.""",
}


def room(k: int, voices: list[Float32], rate: int) -> Float32:
    """Simulate room ``k`` by image sources; return what two microphones hear of each voice.

    Parameters
    ----------
    k
        Seeds the sizes and places.
    voices
        Samples of two voices, of one length.
    rate
        In Hz.

    Returns
    -------
    Float32
        (2 voices, samples, 2 microphones).
    """
    rng = np.random.default_rng([2, k])
    size = rng.uniform([4, 3.5, 2.5], [7, 5, 3])
    absorption, order = pyroomacoustics.inverse_sabine(REVERBERATION_S[k % 4], size)
    centre = size / 2 + rng.uniform(-0.5, 0.5, 3) * [1, 1, 0]
    turned = rng.uniform(0, np.pi)
    half = np.array([np.cos(turned), np.sin(turned), 0]) * SPACING_M / 2
    first = rng.uniform(0, 2 * np.pi)
    second = first + rng.uniform(np.pi / 3, np.pi) * rng.choice([-1, 1])
    heard = []
    for voice, angle in zip(voices, (first, second), strict=True):
        material = pyroomacoustics.Material(absorption)
        place = pyroomacoustics.ShoeBox(size, fs=rate, materials=material, max_order=min(order, 17))
        at = centre + np.array([np.cos(angle), np.sin(angle), 0]) * rng.uniform(0.8, 1.3)
        place.add_source(np.clip(at, 0.3, size - 0.3), signal=voice)
        place.add_microphone_array(np.stack([centre - half, centre + half], axis=1))
        place.simulate()
        heard.append(place.mic_array.signals[:, : len(voice)].T)
    return np.asarray(heard, np.float32)


def better_sir_db(estimates: Float32, images: Float32, rate: int) -> float:
    """Return by how much the SIR of BSS Eval is better than the mixture's, mean of both voices, dB.

    Parameters
    ----------
    estimates, images
        (2, samples, microphones); the better order of the two estimates counts.
    rate
        In Hz.
    """
    mixture = images.sum(axis=0)
    before = bss_eval(np.stack([mixture, mixture]), images, rate).sir
    orders = (estimates, estimates[::-1])
    return float(max(np.mean(bss_eval(found, images, rate).sir - before) for found in orders))


def rooms(model: Path, data: Path) -> str:
    """Score `iva`."""
    rate, samples = 16000, round(ROOM_S * 16000)
    rows = [row for row in table(data) if row.split == "test" and row.role == "speech"]
    pool = Corpus.load(rows, rate).pool("speech")
    names = sorted(pool)
    scores = []
    for k in range(ROOMS):
        rng = np.random.default_rng([1, k])
        pair = rng.choice(names, 2, replace=False)
        images = room(k, [_talk(pool[name], samples, rng) for name in pair], rate)
        found = separate(images.sum(axis=0), rate, model)
        late = slice(round(LEARNING_S * rate), None)
        estimates = np.stack(list(found.values()))
        scores.append(better_sir_db(estimates[:, late], images[:, late], rate))
    return (
        f"SIR {np.mean(scores):.1f} dB better from {LEARNING_S:g} s on ({min(scores):.1f} to "
        f"{max(scores):.1f}), in {ROOMS} simulated rooms"
    )


def _talk(clips: list[np.ndarray], samples: int, rng: Generator) -> Float32:
    """Join recordings of a speaker to a level that all speakers have."""
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < samples:
        parts.append(clips[int(rng.integers(len(clips)))] / np.float32(32768))
    voice = np.concatenate(parts)[:samples]
    return np.asarray(0.05 * voice / np.sqrt(np.mean(np.square(voice))), np.float32)


def songs(model: Path, data: Path, source: str = "voice", stem: str = "vocals") -> str:
    """Score a source of songs against a stem."""
    before, after = [], []
    for item in items(data / "bench" / "music"):
        mixture, rate = read_all(item.mixture)
        wanted = read_all(item.stems[stem])[0]
        before.append(snr_db(mixture, wanted))
        after.append(snr_db(separate(mixture, rate, model)[source], wanted))
    return (
        f"SDR of the {source} {np.mean(after):.1f} dB (mixture {np.mean(before):.1f} dB), mean "
        f"over {len(after)} excerpts of songs"
    )


MEASURES: dict[str, Callable[[Path, Path], str]] = {
    "isa": partial(songs, source="beats", stem="drums"),
    "iva": rooms,
    "repet": songs,
}


def make(name: str, data: Path) -> None:
    """Write bundle and card."""
    description = MADE[name]
    target = WEIGHTS / f"{name}.onnx"
    texts = replace(description, training={**description.training, "licence": "MIT"}).texts()
    part = target.with_suffix(".measuring.onnx")
    try:
        write(export(description.build().eval(), description.spec, texts), part)
        texts["quality"] = MEASURES[name](part, data)
    finally:
        part.unlink(missing_ok=True)
    write(export(description.build().eval(), description.spec, texts), target)
    made = (
        f"{description.training['data']} Made by `python -m export.untrained {name} --data DATA`."
    )
    text = card(load(target), {"Training": made, "Limits": LIMITS[name]})
    target.with_suffix(".md").write_text(text, "utf-8")
    print(f"{target}: {texts['quality']}")


def main() -> None:
    """Make the bundle named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=sorted(MADE))
    parser.add_argument("--data", type=Path, default=os.environ.get("RTSEP_DATA"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("the data folder is missing: use --data or RTSEP_DATA")
    make(arguments.name, Path(arguments.data))


if __name__ == "__main__":
    main()
