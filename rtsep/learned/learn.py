"""From seconds of one source to a decoder: what all models have in common, what is refused.

Torch is imported for auto-encoders only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtsep.errors import LearnedError
from rtsep.learned import nmf
from rtsep.learned.decoder import Decoder
from rtsep.learned.source import MAX_RANK, MODELS
from rtsep.spec import Float32, Spec

SILENCE = 1e-5
"""Mean magnitude per bin below which there is nothing to learn from: 130 dB below a sine."""
TAPS = 8
"""Frames of a convolutive decoder's entries, as in the paper."""


@dataclass(frozen=True)
class Plan:
    """How a source is learned.

    Attributes
    ----------
    model
        Of `rtsep.learned.source.MODELS`.
    rank
        Activations per frame.
    updates
        Of the fit; as many as the model is known to need if 0.
    sparsity
        Penalty of the activations; the model's own if negative.
    smallness
        Penalty of the decoder's weights, of auto-encoders only.
    seed
        Of the random start.
    """

    model: str = "nmf"
    rank: int = 40
    updates: int = 0
    sparsity: float = -1.0
    smallness: float = 0.0
    seed: int = 0

    def count(self) -> int:
        """Updates that will be done."""
        return self.updates or _UPDATES[self.model]


_UPDATES = {"nmf": 200, "cnmf": 100, "nae": 60, "nae-deep": 60, "ccae": 60, "rcae": 100}
_SPARSITY = {"nmf": 0.0, "cnmf": 0.0, "nae": 0.05, "nae-deep": 0.0, "ccae": 0.05, "rcae": 0.05}


def check(magnitudes: Float32, samples: int, spec: Spec, rank: int) -> None:
    """Refuse what nothing can be learned from.

    Parameters
    ----------
    magnitudes
        (frames, bins).
    samples
        Of the recording, at the rate of ``spec``.
    spec
        Rate and windows.
    rank
        Of the model.

    Raises
    ------
    LearnedError
        Less than one window, silence, or more entries than frames.
    """
    if samples < spec.window_length:
        raise LearnedError(
            f"{samples} samples are less than one window of {spec.window_length}: record more, 20 "
            "seconds are good"
        )
    if not 1 <= rank <= MAX_RANK:
        raise LearnedError(f"rank must be 1 to {MAX_RANK}, not {rank}")
    if rank > len(magnitudes):
        raise LearnedError(
            f"rank {rank} is more than the {len(magnitudes)} frames there are: record more, or "
            "use a smaller --rank"
        )
    if not magnitudes.mean() > SILENCE:
        raise LearnedError("there is nothing but silence to learn from: is the microphone on?")


def learn(
    magnitudes: Float32,
    plan: Plan,
    done: Callable[[], object] = lambda: None,
) -> tuple[Decoder, Float32]:
    """Learn a decoder; auto-encoders need torch.

    Parameters
    ----------
    magnitudes
        (frames, bins) of one source.
    plan
        How.
    done
        Called after each of ``plan.count()`` updates.

    Returns
    -------
    The decoder, and the activations (frames, rank).

    Raises
    ------
    LearnedError
        Torch is missing, or what was learned is not finite.
    """
    model = plan.model
    if model not in MODELS:
        raise LearnedError(f"unknown model {model!r}; there are: {', '.join(MODELS)}")
    options: dict[str, Any] = {
        "updates": plan.count(),
        "sparsity": _SPARSITY[model] if plan.sparsity < 0 else plan.sparsity,
        "seed": plan.seed,
        "done": done,
    }
    if model in ("nmf", "cnmf"):
        taps = TAPS if model == "cnmf" else 1
        decoder, activations = nmf.learn(magnitudes, plan.rank, taps, **options)
    else:
        decoder, activations = _autoencoder()(
            magnitudes, plan.rank, smallness=plan.smallness, **_KINDS[model], **options
        )
    if not all(np.all(np.isfinite(m)) for m in decoder.matrices):
        raise LearnedError(f"{model} diverged on this recording: use another --seed or nmf")
    return decoder, activations


_KINDS: dict[str, dict[str, Any]] = {
    "nae": {},
    "nae-deep": {"hidden": 100},
    "ccae": {"taps": TAPS},
    "rcae": {"taps": TAPS, "recurrent": True},
}


def _autoencoder() -> Callable[..., tuple[Decoder, Float32]]:
    try:
        from rtsep.learned.autoencoders import learn as train
    except ModuleNotFoundError as error:
        raise LearnedError(
            f"auto-encoders need {error.name}: install it with pip install 'rtsep[train]', or "
            "use --model nmf"
        ) from None
    return train
