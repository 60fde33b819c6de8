"""Measure a model over long mixtures, after a burst of noise, and in rooms.

python -m bench.robustness --data ../shared/data speech speakers [--count 8]

Three experiments with test voices that training never used: the improvement over the seconds of
mixtures of 80 s, longer than any in training (Mobin, Cheung, Olshausen 2018); the loss after 0.25 s
of white noise in mid-stream, against the same mixture without it; and the improvement with each
source played through a measured room response (as their RealTalkLibri). Models of two speakers get
two voices, others a voice and noise. Prints the figures, and writes them as
``robustness.json`` and ``robustness.png`` to ``runs/robustness``.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import permutations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.random import Generator

from rtsep import weights
from rtsep.evaluate.metrics import si_sdr_db
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.pipeline import LoadedModel, aligned
from rtsep.spec import Float32
from rtsep.train.corpus import Corpus
from rtsep.train.layouts import table
from rtsep.train.sound import active_rms, convolve

SECONDS, WINDOW_S = 80, 5
BURST_AT_S, BURST_S, BURST_DB = 40.0, 0.25, 10.0
"""Time, length, and level of the burst above the mixture, in dB."""
AFTER_S = 8
PAUSE_S = 0.3
NOISE_DB = 5.0
"""Level of a voice above the noise, in dB."""


def continuous(clips: list[Any], samples: int, rate: int, rng: Generator) -> Float32:
    """Return clips in random order with pauses, (samples,), at a level of 0.05."""
    pause = np.zeros(round(PAUSE_S * rate), np.float32)
    parts: list[Float32] = []
    while sum(map(len, parts)) < samples:
        clip = clips[rng.integers(len(clips))].astype(np.float32) / 32768
        parts += [clip / max(active_rms(clip), 1e-4), pause]
    return 0.05 * np.concatenate(parts)[:samples]


def voices(bundle: Bundle) -> int:
    """Return how many of the sources are voices, which come first."""
    return sum(source != "noise" for source in bundle.spec.sources)


def made(bundle: Bundle, corpus: Corpus, number: int, response: Float32 | None) -> Float32:
    """Make the sources of mixture ``number``, (samples, sources)."""
    rng = np.random.default_rng(number)
    rate, speech, noise = bundle.spec.sample_rate, corpus.pool("speech"), corpus.pool("noise")
    samples = SECONDS * rate
    who = rng.permutation(sorted(speech))
    sources = [continuous(speech[str(who[0])], samples, rate, rng)]
    if voices(bundle) == 1:
        kind = str(rng.choice(sorted(noise)))
        less = 10 ** (-NOISE_DB / 20)
        sources.append(less * continuous(noise[kind], samples, rate, rng))
    else:
        sources.append(continuous(speech[str(who[1])], samples, rate, rng))
    if response is not None:
        wet = [convolve(source, response) for source in sources]
        sources = [x * (active_rms(s) / active_rms(x)) for x, s in zip(wet, sources, strict=True)]
    return np.stack(sources, axis=1).astype(np.float32)


def separated(loaded: LoadedModel, mixture: Float32) -> Float32:
    """Separate (samples,) with the live engine; return (samples, sources)."""
    block = 1 << 14
    blocks = (mixture[at : at + block, None] for at in range(0, len(mixture), block))
    engine = loaded.engine(loaded.bundle.spec.sample_rate)
    return np.concatenate([part[:, :, 0].copy() for part in aligned(engine, blocks)])


def ordered(estimate: Float32, sources: Float32) -> Float32:
    """Put the estimates into the order that fits the sources best, over the whole mixture.

    An estimate beyond the sources, the noise of a model of two speakers, stays last.
    """
    orders = list(permutations(range(sources.shape[1])))
    fits = [sum(si_sdr_db(estimate[:, o[i]], s) for i, s in enumerate(sources.T)) for o in orders]
    return estimate[:, orders[int(np.argmax(fits))]]


def over_time(
    estimate: Float32, sources: Float32, mixture: Float32, rate: int, seconds: int
) -> list[float]:
    """Return the improvement in each window of ``seconds``, the mean of the audible voices."""
    found = []
    for at in range(0, len(mixture), seconds * rate):
        part = slice(at, at + seconds * rate)
        gains = [
            si_sdr_db(estimate[part, i], s[part]) - si_sdr_db(mixture[part], s[part])
            for i, s in enumerate(sources.T)
            if active_rms(s[part]) > 1e-3
        ]
        found.append(float(np.mean(gains)) if gains else float("nan"))
    return found


def experiment(name: str, data: Path, count: int) -> dict[str, Any]:
    """Run the three experiments for one model."""
    bundle = weights.find(name)
    rate = bundle.spec.sample_rate
    corpus = Corpus.load([row for row in table(data) if row.split == "test"], rate)
    loaded = LoadedModel(bundle, 1)
    heard = slice(voices(bundle))
    long, burst, rooms = [], [], {}
    for number in range(count):
        sources = made(bundle, corpus, number, None)
        mixture = sources.sum(axis=1)
        estimate = ordered(separated(loaded, mixture), sources)[:, heard]
        long.append(over_time(estimate, sources[:, heard], mixture, rate, WINDOW_S))
        level = active_rms(mixture) * 10 ** (BURST_DB / 20)
        start, end = round(BURST_AT_S * rate), round((BURST_AT_S + BURST_S) * rate)
        struck = mixture.copy()
        hiss = np.random.default_rng(number).standard_normal(end - start)
        struck[start:end] += (level * hiss).astype(np.float32)
        again = ordered(separated(loaded, struck), sources)[:, heard]
        after = slice(end, end + AFTER_S * rate)
        parts = [
            over_time(x[after], sources[after, heard], mixture[after], rate, 1)
            for x in (again, estimate)
        ]
        burst.append(np.subtract(*parts).tolist())
    for place, response in enumerate([None, *corpus.responses]):
        gains = []
        for number in range(count):
            sources = made(bundle, corpus, number, response)[: 20 * rate]
            mixture = sources.sum(axis=1)
            estimate = ordered(separated(loaded, mixture), sources)[:, heard]
            gains.append(over_time(estimate, sources[:, heard], mixture, rate, 20)[0])
        rooms["no room" if response is None else f"room {place}"] = float(np.nanmean(gains))
    return {
        "model": name,
        "mixtures": count,
        "window_s": WINDOW_S,
        "improvement_db": np.nanmean(long, axis=0).tolist(),
        "after_burst_db": np.nanmean(burst, axis=0).tolist(),
        "rooms_db": rooms,
    }


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Plot the three experiments side by side."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (first, second, third) = pyplot.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for number, result in enumerate(results):
        seconds = WINDOW_S * (np.arange(len(result["improvement_db"])) + 0.5)
        first.plot(seconds, result["improvement_db"], "o-", label=result["model"])
        after = np.arange(len(result["after_burst_db"])) + 0.5
        second.plot(after, result["after_burst_db"], "o-")
        places = np.arange(len(result["rooms_db"])) + 0.8 * (number + 0.5) / len(results) - 0.4
        third.bar(places, result["rooms_db"].values(), 0.7 / len(results))
        third.set_xticks(range(len(result["rooms_db"])), list(result["rooms_db"]))
    first.set(xlabel="seconds of the mixture", ylabel="SI-SDRi in dB", ylim=(0, None))
    second.set(xlabel="seconds after a burst of noise", ylabel="change of SI-SDR in dB")
    third.set(ylabel="SI-SDRi in dB")
    first.legend()
    for axes in (first, second, third):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Run the experiments for the models of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="name, or path of a bundle")
    parser.add_argument("--data", type=Path, default=os.environ.get("RTSEP_DATA"))
    parser.add_argument("--count", type=int, default=8, help="mixtures of each model; 8")
    parser.add_argument("--runs", type=Path, default=Path("runs/robustness"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("the data folder is missing: use --data or RTSEP_DATA")
    arguments.runs.mkdir(parents=True, exist_ok=True)
    results = []
    for name in arguments.models:
        result = experiment(name, Path(arguments.data), arguments.count)
        results.append(result)
        print(f"{name}, {arguments.count} mixtures of {SECONDS} s, SI-SDRi in dB")
        print("  every 5 s:", " ".join(f"{x:.1f}" for x in result["improvement_db"]))
        print("  change in each second after a burst:", end=" ")
        print(" ".join(f"{x:+.1f}" for x in result["after_burst_db"]))
        print("  " + ", ".join(f"{room} {x:.2f}" for room, x in result["rooms_db"].items()))
    (arguments.runs / "robustness.json").write_text(json.dumps(results, indent=2), "utf-8")
    draw(results, arguments.runs / "robustness.png")
    print(f"{arguments.runs / 'robustness.json'} and robustness.png")


if __name__ == "__main__":
    main()
