"""Learn a decoder from seconds of one source: checks and defaults for all models.

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
"""Mean magnitude per bin below which a recording is silent: 130 dB below a full-scale sine."""
TAPS = 8
"""Frames per entry of convolutive decoders, as in the paper."""


@dataclass(frozen=True)
class Plan:
    """Model and options with which a source is learned.

    Attributes
    ----------
    model
        One of `rtsep.learned.source.MODELS`.
    rank
        Activations per frame.
    updates
        Number of updates; 0 selects the model's default.
    sparsity
        Penalty of the activations; a negative value selects the model's default.
    smallness
        Penalty of the decoder's weights, of auto-encoders only.
    seed
        Seed of the random initialisation.
    """

    model: str = "nmf"
    rank: int = 40
    updates: int = 0
    sparsity: float = -1.0
    smallness: float = 0.0
    seed: int = 0

    def count(self) -> int:
        """Return the number of updates."""
        return self.updates or _UPDATES[self.model]


_UPDATES = {"nmf": 200, "cnmf": 100, "nae": 60, "nae-deep": 60, "ccae": 60, "rcae": 100}
_SPARSITY = {"nmf": 0.0, "cnmf": 0.0, "nae": 0.05, "nae-deep": 0.0, "ccae": 0.05, "rcae": 0.05}


def check(magnitudes: Float32, samples: int, spec: Spec, rank: int) -> None:
    """Check that a source can be learned from these magnitudes.

    Parameters
    ----------
    magnitudes
        (frames, bins).
    samples
        Length of the recording, at the rate of ``spec``.
    spec
        Rate and windows.
    rank
        Activations per frame.

    Raises
    ------
    LearnedError
        The recording is shorter than one window or silent, or it has fewer frames than ``rank``.
    """
    if samples < spec.window_length:
        raise LearnedError(
            f"{samples} samples are less than one window of {spec.window_length}: record about 20 "
            "seconds"
        )
    if not 1 <= rank <= MAX_RANK:
        raise LearnedError(f"rank must be 1 to {MAX_RANK}, not {rank}")
    if rank > len(magnitudes):
        raise LearnedError(
            f"rank {rank} exceeds the {len(magnitudes)} frames of the recording: record more, or "
            "use a smaller --rank"
        )
    if not magnitudes.mean() > SILENCE:
        raise LearnedError("the recording is silent: is the microphone on?")


def learn(
    magnitudes: Float32,
    plan: Plan,
    done: Callable[[], object] = lambda: None,
) -> tuple[Decoder, Float32]:
    """Learn a decoder from one source; auto-encoders need torch.

    Parameters
    ----------
    magnitudes
        (frames, bins) of one source.
    plan
        Model and options.
    done
        Called after each of ``plan.count()`` updates.

    Returns
    -------
    The decoder, and the activations (frames, rank).

    Raises
    ------
    LearnedError
        Torch is missing, or the learned weights are not finite.
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
