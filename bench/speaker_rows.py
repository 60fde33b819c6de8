"""How well a model separates two voices: by sex, one voice alone, and for how long.

python -m bench.speaker_rows --model NAME_OR_BUNDLE --data DATA [--json FILE]

All sound passes the live engine, all voices are of the test split. Scores:

- pairs (DATA/bench/two_speakers): SI-SDR improvement in the better order of each file, of all
  pairs and by their sexes; the share of pairs in which both improve by 5 dB or more; how often the
  voices change places, per file and per minute: from one window of a second in which both talk to
  another one, the better order is another one, by 1 dB or more;
- one voice alone: SI-SDR of the output that has it, and how much quieter the other is;
- conversations of 80 s: SI-SDR improvement in the last 20 s beside that in the first 20 s, in the
  order of the first, so that a lasting swap is not forgiven.
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

import rtsep
from bench.speech_rows import BARS, RATE_HZ, Row, as_json, listed, mean, read, table
from bench.speech_sets import GAP_S, SPEECH_DB
from rtsep.errors import EvaluationError, RtsepError
from rtsep.evaluate.metrics import si_sdr_db
from rtsep.evaluate.report import check_target, write
from rtsep.spec import Float32
from rtsep.train.corpus import Corpus, Int16
from rtsep.train.layouts import table as files_of
from rtsep.train.sound import active_rms, joined

EXAMPLES = """\
examples:
  python -m bench.speaker_rows --model speakers --data DATA
  python -m bench.speaker_rows --model my.onnx --data DATA --json rows.json
"""
SEX = re.compile(r"so\d+([fm])")
"""Speakers of the data whose sex is known; kathleen is a woman, too."""
KINDS = {"fm": "woman and man", "ff": "two women", "mm": "two men"}
USABLE_DB = 5.0
WINDOW_S, ACTIVE_DB, CLEAR_DB = 1.0, -25.0, 1.0
"""Windows in which places are compared, least level of a voice re its own, least difference."""
ALONE_S, LONG_S, PART_S = 6.0, 80.0, 20.0
CONVERSATIONS = 6
FLOOR_DB = -80.0


class Model:
    """The voices that a model finds.

    Raises
    ------
    EvaluationError
        The model has no two speakers.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.separation = rtsep.load(name, sample_rate=RATE_HZ)
        self.voices = [s for s in self.separation.sources if s.startswith("speaker")]
        if len(self.voices) != 2:
            found = ", ".join(self.separation.sources)
            raise EvaluationError(f"{name} separates {found}, not two speakers")

    def __call__(self, mixture: Float32) -> Float32:
        """Separate (n,) samples, (2, n), aligned."""
        parts = [self.separation.process(mixture), self.separation.flush()]
        late = self.separation.latency.samples
        return np.stack([np.concatenate([p[s] for p in parts])[late:] for s in self.voices])


def gains_db(estimates: Float32, voices: Float32, mixture: Float32) -> np.ndarray:
    """Return the improvement of both voices, in the order of the estimates."""
    return np.array(
        [si_sdr_db(e, s) - si_sdr_db(mixture, s) for e, s in zip(estimates, voices, strict=True)]
    )


def order(estimates: Float32, voices: Float32) -> int:
    """Return 1 if the estimates fit better the other way round, else 0."""
    scores = [
        sum(si_sdr_db(e, s) for e, s in zip(found, voices, strict=True))
        for found in (estimates, estimates[::-1])
    ]
    return int(scores[1] > scores[0])


def swaps(estimates: Float32, voices: Float32) -> int:
    """Count how often the voices change places."""
    size, last, count = round(WINDOW_S * RATE_HZ), 0, 0
    usual = [active_rms(voice) for voice in voices]
    for start in range(0, voices.shape[1] - size + 1, size // 2):
        part = slice(start, start + size)
        level = [np.sqrt(np.mean(np.square(voice[part]))) for voice in voices]
        heard = all(x > y * 10 ** (ACTIVE_DB / 20) for x, y in zip(level, usual, strict=True))
        if not heard:
            continue
        errors = [
            float(np.mean(np.square(found[:, part] - voices[:, part])))
            for found in (estimates, estimates[::-1])
        ]
        clear = 10 * math.log10((errors[0] + 1e-12) / (errors[1] + 1e-12))
        now = 0 if abs(clear) < CLEAR_DB else (1 if clear > 0 else -1)
        count += now * last < 0
        last = now or last
    return count


def sex(speaker: str) -> str:
    """Return f or m."""
    known = SEX.fullmatch(speaker)
    return known[1] if known else "f"


def pairs(model: Model, folder: Path) -> list[Row]:
    """Score the fixed pairs."""
    better: dict[str, dict[str, float]] = {}
    both, changes, seconds = [], [], 0.0
    for row in listed(folder):
        name = row["id"]
        mixture, *each = (read(folder / f"{name}_{x}.flac") for x in ("mixture", *model.voices))
        voices = np.stack(each)
        found = model(mixture)
        found = found[::-1] if order(found, voices) else found
        gain = gains_db(found, voices, mixture)
        kind = "".join(sorted(sex(row[x]) for x in ("speaker1", "speaker2")))
        better.setdefault(KINDS[kind], {})[name] = float(np.mean(gain))
        both.append(bool(np.all(gain >= USABLE_DB)))
        changes.append(swaps(found, voices))
        seconds += len(mixture) / RATE_HZ
    every = {name: gain for each in better.values() for name, gain in each.items()}
    rows = [Row("pairs", "SI-SDRi dB", mean(every.values()), files=every)]
    rows += [
        Row("pairs", f"SI-SDRi dB, {kind}", mean(files.values()), files=files)
        for kind, files in sorted(better.items())
    ]
    return [
        *rows,
        Row("pairs", f"both better by {USABLE_DB:g} dB, %", 100 * float(np.mean(both)), digits=0),
        Row("pairs", "changes of place per file", float(np.mean(changes))),
        Row("pairs", "changes of place per minute", 60 * sum(changes) / seconds),
    ]


def talk(clips: list[Int16], seconds: float, seed: int) -> Float32:
    """Join sentences of a speaker, at the level of `SPEECH_DB`."""
    samples, gap = round(seconds * RATE_HZ), round(GAP_S * RATE_HZ)
    speech = joined(clips, samples, gap, RATE_HZ, np.random.default_rng([2, seed]))
    return speech * np.float32(10 ** (SPEECH_DB / 20) / active_rms(speech))


def alone(model: Model, speakers: dict[str, list[Int16]]) -> list[Row]:
    """Score single voices, which have to stay whole."""
    whole, quieter = {}, {}
    for k, (name, clips) in enumerate(sorted(speakers.items())):
        voice = talk(clips, ALONE_S, k)
        found = model(voice)
        scores = [si_sdr_db(x, voice) for x in found]
        best = int(np.argmax(scores))
        power = [float(np.mean(np.square(x, dtype=np.float64))) for x in found]
        whole[name] = scores[best]
        level_db = 10 * math.log10(max(power[1 - best] / max(power[best], 1e-20), 1e-20))
        quieter[name] = -max(level_db, FLOOR_DB)
    return [
        Row("one voice alone", "SI-SDR dB of its output", mean(whole.values()), files=whole),
        Row("one voice alone", "the other is quieter by dB", mean(quieter.values()), files=quieter),
    ]


def conversations(model: Model, speakers: dict[str, list[Int16]]) -> list[Row]:
    """Compare the end of long conversations with their beginning."""
    names = sorted(speakers)
    first, last, swapped = {}, {}, {}
    for k in track(range(CONVERSATIONS), "conversations", transient=True, console=BARS):
        pair = names[k % len(names)], names[(k * 5 + 3) % len(names)]
        voices = np.stack([talk(speakers[x], LONG_S, 100 + 2 * k + i) for i, x in enumerate(pair)])
        mixture = voices.sum(axis=0)
        found = model(mixture)
        part = round(PART_S * RATE_HZ)
        begin, end = slice(0, part), slice(-part, None)
        turned = order(found[:, begin], voices[:, begin])
        swapped[" ".join(pair)] = float(order(found[:, end], voices[:, end]) != turned)
        found = found[::-1] if turned else found
        for into, where in ((first, begin), (last, end)):
            gain = gains_db(found[:, where], voices[:, where], mixture[where])
            into[" ".join(pair)] = float(np.mean(gain))
    return [
        Row(
            f"{LONG_S:g} s of talk",
            f"SI-SDRi dB in the last {PART_S:g} s, beside the first",
            mean(last.values()),
            mean(first.values()),
            files=last,
        ),
        Row(
            f"{LONG_S:g} s of talk", "lasting swaps", sum(swapped.values()), digits=0, files=swapped
        ),
    ]


def measure(name: str, data: Path) -> list[Row]:
    """All rows of a model.

    Raises
    ------
    RtsepError
        The data lacks something, or the model has no two speakers.
    """
    model = Model(name)
    rows = [row for row in files_of(data) if row.split == "test" and row.role == "speech"]
    speakers = Corpus.load(rows, RATE_HZ).pool("speech")
    if len(speakers) < 2:
        raise EvaluationError(f"{data} has {len(speakers)} test speakers; 2 are needed")
    return [
        *pairs(model, data / "bench" / "two_speakers"),
        *alone(model, speakers),
        *conversations(model, speakers),
    ]


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", required=True, help="shipped model's name, or a bundle's path")
    parser.add_argument("--data", type=Path, required=True, help="folder with bench/two_speakers")
    parser.add_argument("--json", type=Path, help="write the rows and every file's figure")
    arguments = parser.parse_args()
    try:
        if arguments.json is not None:
            check_target(arguments.json)
        rows = measure(arguments.model, arguments.data)
        Console().print(table(rows))
        if arguments.json is not None:
            text = as_json(arguments.model, rows)
            write(arguments.json, lambda file: file.write(text.encode()))
    except RtsepError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
