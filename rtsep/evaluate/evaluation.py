"""Evaluate a model on a folder of mixtures, with the streaming engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtsep import weights
from rtsep.errors import EvaluationError
from rtsep.evaluate import oracle
from rtsep.evaluate.folder import REST, Example, Item, items, matched, read, stems_in
from rtsep.evaluate.metrics import METRICS
from rtsep.evaluate.score import best_order, is_speech, scores, silent
from rtsep.evaluate.words import Recogniser, Words, texts
from rtsep.runtime.bundle import Bundle
from rtsep.runtime.engine import DEFAULT, Engine, StemOptions
from rtsep.runtime.pipeline import BLOCK, LoadedModel, aligned
from rtsep.spec import Float32


@dataclass(frozen=True)
class Row:
    """Scores of one source of one mixture, and of the mixture as its estimate.

    Undefined scores are NaN.
    """

    item: str
    source: str
    estimate: dict[str, float]
    mixture: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """Statistics of a score over the ``count`` mixtures where it is defined.

    ``mixture`` is the mean score of the mixtures, ``improvement`` the mean improvement over them;
    both are NaN for metrics of artefacts.
    """

    mean: float
    median: float
    mixture: float
    improvement: float
    count: int


class Evaluation:
    """Scores of one model on one folder; `add` its ``items`` one by one.

    Parameters
    ----------
    folder
        See `rtsep.evaluate.folder.items`.
    model
        As ``--model``, or ``oracle:KIND``.
    recognise
        Hears the speech whose text the folder knows (`rtsep.evaluate.words`); None for no words.
    options
        What is done to the stems of a model.

    Attributes
    ----------
    name
        Name of the model.
    items
        All mixtures of the folder.
    sources
        Names of the scored sources.
    rows
        Scores so far.
    unscored
        Number of sources without scores so far: silent, or alone in their mixture.
    words
        Words recognised so far; None without a recogniser.

    Raises
    ------
    EvaluationError
        The folder has another layout, its sources are not those of the model, or it has no texts
        to recognise.
    BundleError
        The model does not exist or can't be run.
    """

    def __init__(
        self,
        folder: Path,
        model: str | None = None,
        recognise: Recogniser | None = None,
        options: StemOptions = DEFAULT,
    ) -> None:
        self.folder = folder
        self.items = items(folder)
        self._stems = stems_in(self.items)
        self._separate: Callable[[Example], Float32]
        if model is not None and model.startswith("oracle:"):
            mask = oracle.parse(model)
            self.name = model
            self.sources = self._stems if len(self._stems) > 1 else (*self._stems, REST)
            self._separate = lambda example: _oracle(example, *mask, self.sources)
        else:
            bundle = weights.find(model)
            self.name, self.sources = bundle.metadata["name"], bundle.spec.sources
            matched(self._stems, self.sources, self.name, folder)
            self._separate = _Bundled(bundle, options)
        self.words = Words(texts(folder, self.items), recognise) if recognise else None
        self.rows: list[Row] = []
        self.unscored = 0

    def add(self, item: Item) -> None:
        """Separate and score a mixture.

        Raises
        ------
        AudioFileError, SpecError
            The mixture can't be read or separated; no scores were added.
        """
        example = read(item, self._stems, self.sources)
        estimates = self._separate(example)
        estimates = estimates[best_order(estimates, example.references, self.sources)]
        heard = [index for index, sound in enumerate(example.references) if not silent(sound)]
        if len(heard) < 2:  # a single source is the mixture itself: there is nothing to separate
            heard = []
        self.unscored += len(self.sources) - len(heard)
        if not heard:
            return
        references = example.references[heard]
        names = tuple(self.sources[index] for index in heard)
        mixtures = np.broadcast_to(example.mixture, references.shape)
        found, before = (
            scores(sounds, references, example.rate_hz, names)
            for sounds in (estimates[heard], mixtures)
        )
        for undefined in before.values():
            undefined |= {key: float("nan") for key in undefined if METRICS[key].of_artefacts}
        self.rows += [Row(item.name, name, found[name], before[name]) for name in names]
        if self.words is not None:
            rate = example.rate_hz
            self.words.add(item.name, names, example.mixture, references, estimates[heard], rate)

    def summary(self) -> dict[str, dict[str, Summary]]:
        """Return statistics by source and metric, without metrics that are never defined."""
        result: dict[str, dict[str, Summary]] = {}
        for source in self.sources:
            rows = [row for row in self.rows if row.source == source]
            for metric, kind in METRICS.items():
                pairs = [
                    (row.estimate[metric], row.mixture[metric])
                    for row in rows
                    if metric in row.estimate
                ]
                known = [
                    (x, before)
                    for x, before in pairs
                    if np.isfinite(x) and (np.isfinite(before) or kind.of_artefacts)
                ]
                if known:
                    estimate, mixture = np.array(known).T
                    result.setdefault(source, {})[metric] = Summary(
                        float(np.mean(estimate)),
                        float(np.median(estimate)),
                        float(np.mean(mixture)),
                        float(np.mean(estimate - mixture)),
                        len(known),
                    )
        return result

    def mean(self, metric: str, field: str = "mean") -> float:
        """Return the mean over the speech sources, or over all sources if none is speech.

        Parameters
        ----------
        metric
            A key of `METRICS`.
        field
            Field of `Summary`.

        Returns
        -------
        float
            NaN if the metric is undefined or its package missing.
        """
        summary = self.summary()
        chosen = [source for source in summary if is_speech(source)] or list(summary)
        found = [getattr(summary[s][metric], field) for s in chosen if metric in summary[s]]
        return float(np.mean(found)) if found else float("nan")

    def headline(self) -> str:
        """Format the usual figures: SI-SDRi, PESQ and STOI for speech, else SDR of whole tracks.

        All are means over sources and mixtures.
        """
        if not any(map(is_speech, self.summary())):
            before = self.mean("snr_db", "mixture")
            return f"SDR of whole tracks {self.mean('snr_db'):.2f} dB (mixture {before:.2f})"
        parts = [f"SI-SDRi {self.mean('si_sdr_db', 'improvement'):.2f} dB"]
        for key in ("pesq_wb", "estoi"):
            mean, before, metric = self.mean(key), self.mean(key, "mixture"), METRICS[key]
            if np.isfinite(mean):
                said = f"{mean:.{metric.digits}f} (mixture {before:.{metric.digits}f})"
                parts.append(f"{metric.label} {said}")
        return ", ".join(parts)


def evaluate(folder: Path, model: str | None = None) -> Evaluation:
    """Evaluate a whole folder.

    Raises
    ------
    EvaluationError, BundleError, AudioFileError, SpecError
        A mixture, or the model, is invalid.
    """
    evaluation = Evaluation(folder, model)
    for item in evaluation.items:
        evaluation.add(item)
    if not evaluation.rows:
        raise EvaluationError(f"no source in {folder} can be scored")
    return evaluation


class _Bundled:
    """Computes the estimates of a bundle, (sources, n, channels)."""

    def __init__(self, bundle: Bundle, options: StemOptions) -> None:
        self._bundle, self._options = bundle, options
        self._engines: dict[tuple[int, int], Engine] = {}

    def __call__(self, example: Example) -> Float32:
        kind = example.rate_hz, example.mixture.shape[1]
        if kind not in self._engines:
            loaded = LoadedModel(self._bundle, kind[1], self._options)
            self._engines[kind] = loaded.engine(example.rate_hz)
        return _stems(self._engines[kind], example.mixture)


def _oracle(example: Example, kind: str, window_length: int, sources: tuple[str, ...]) -> Float32:
    """Compute the estimates of an oracle mask, (sources, n, channels)."""
    channels = example.mixture.shape[1]
    step = oracle.Oracle(kind, sources, example.rate_hz, channels, window_length)
    engine = Engine(step, step.spec, step.spec.channels, rate_hz=example.rate_hz)
    sound = np.concatenate([example.mixture, *example.references], axis=1)
    return _stems(engine, sound)[:, :, :channels]


def _stems(engine: Engine, sound: Float32) -> Float32:
    """Separate (n, channels) into (sources, n, channels)."""
    blocks = (sound[start : start + BLOCK] for start in range(0, len(sound), BLOCK))
    stems = np.concatenate([part.copy() for part in aligned(engine, blocks)])
    return np.ascontiguousarray(stems.transpose(1, 0, 2))
