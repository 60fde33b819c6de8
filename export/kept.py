"""Score a model that keeps an enrolled voice: whose voice comes out of a mixture of two.

All speech is of the test split of the data; a speaker's recordings are either enrolled, 10 s of
them, or mixed. For each of 20 pairs, mixed at equal level, both speakers are kept in turn. Found
are the improvement in SI-SDR with the speaker's own voice, and how often the other speaker's voice
gives the other speaker: its stem is nearer to that one than to the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

import rtsep
from rtsep import weights
from rtsep.errors import EvaluationError
from rtsep.evaluate.metrics import si_sdr_db
from rtsep.learned.enrolment import enroll
from rtsep.learned.kept_voice import Voice
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.pipeline import BLOCK
from rtsep.spec import Float32
from rtsep.train.corpus import Corpus, Int16
from rtsep.train.layouts import table
from rtsep.train.sound import active_rms, joined

RATE_HZ = 16000
PAIRS = 20
ENROLLED_S, MIXED_S = 10.0, 6.0
GAP_S = 0.25
"""Between two recordings of one speaker."""
SPEECH_DB = -26.0
"""Level of each speaker without pauses, re full scale."""


@dataclass(frozen=True)
class Person:
    """A test speaker: sentences to mix, and the voice."""

    name: str
    said: list[Int16]
    voice: Voice


def people(corpus: Corpus, bundle: Bundle) -> list[Person]:
    """Enrol every speaker who has enough recordings."""
    found, samples, gap = [], round(ENROLLED_S * RATE_HZ), round(GAP_S * RATE_HZ)
    for name, clips in sorted(corpus.pool("speech").items()):
        lengths = np.cumsum([len(clip) for clip in clips]) / RATE_HZ
        count = int(np.searchsorted(lengths, ENROLLED_S)) + 1
        if count < len(clips) and lengths[-1] - lengths[count - 1] > 3.0:
            spoken = joined(clips[:count], samples, gap, RATE_HZ, np.random.default_rng(0))
            blocks = (spoken[at : at + BLOCK, None] for at in range(0, samples, BLOCK))
            voice = enroll(bundle, blocks, 1, RATE_HZ, samples)
            found.append(Person(name, clips[count:], voice))
    return found


def pairs(who: list[Person]) -> Iterator[tuple[Person, Person, list[Float32]]]:
    """Yield two speakers and what they say."""
    samples, gap = round(MIXED_S * RATE_HZ), round(GAP_S * RATE_HZ)
    for k in range(PAIRS):
        lap, first = divmod(k, len(who))
        pair = who[first], who[(first + lap + 1) % len(who)]
        rng = np.random.default_rng([1, k])
        said = [joined(person.said, samples, gap, RATE_HZ, rng) for person in pair]
        yield (*pair, [x * np.float32(10 ** (SPEECH_DB / 20) / active_rms(x)) for x in said])


def measure(data: Path, model: str) -> dict[str, Any]:
    """Score the model; see the top of this module.

    Raises
    ------
    RtsepError
        The data lacks speakers, or the model keeps no voice.
    """
    bundle = weights.find(model)
    rows = [row for row in table(data) if row.split == "test" and row.role == "speech"]
    who = people(Corpus.load(rows, RATE_HZ), bundle)
    if len(who) < 3:
        raise EvaluationError(f"{data} has {len(who)} test speakers with enough speech, not 3")
    found: list[dict[str, Any]] = []
    for *pair, said in track(list(pairs(who)), transient=True):
        mixture = said[0] + said[1]
        for own, other in ((0, 1), (1, 0)):
            stems = [
                next(iter(_kept(bundle, pair[index].voice, mixture).values()))
                for index in (own, other)
            ]
            found.append(
                {
                    "kept": pair[own].name,
                    "beside": pair[other].name,
                    "before_db": si_sdr_db(mixture, said[own]),
                    "after_db": si_sdr_db(stems[0], said[own]),
                    "wrong_voice_gives_the_other": bool(
                        si_sdr_db(stems[1], said[other]) > si_sdr_db(stems[1], said[own])
                    ),
                }
            )
    gains = [x["after_db"] - x["before_db"] for x in found]
    right = [x["wrong_voice_gives_the_other"] for x in found]
    return {
        "model": bundle.metadata["name"],
        "si_sdr_improvement_db": float(np.mean(gains)),
        "at_least_4_db": float(np.mean(np.array(gains) >= 4.0)),
        "wrong_voice_gives_the_other": float(np.mean(right)),
        "mixtures": found,
    }


def _kept(bundle: Bundle, voice: Voice, mixture: Float32) -> dict[str, Float32]:
    return rtsep.separate(mixture, RATE_HZ, bundle.path, controls={voice.control: voice.values})


def headline(found: Mapping[str, Any]) -> str:
    """Format the figures of `measure`."""
    share, right = found["at_least_4_db"], found["wrong_voice_gives_the_other"]
    return (
        f"SI-SDRi {found['si_sdr_improvement_db']:.2f} dB of an enrolled voice beside another one, "
        f"4 dB or more in {100 * share:.0f} %; the other's voice gives the other in "
        f"{100 * right:.0f} %"
    )
