"""The training loop: trains on mixtures, validates, and keeps the best checkpoint."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rtsep.errors import NotFiniteError, RecipeError, StoppedError
from rtsep.models.checkpoint import Description, save
from rtsep.nn.frontend import Frontend, separate
from rtsep.nn.streaming import Bound, Controlled, Enrolling, Streaming
from rtsep.train.journal import Journal
from rtsep.train.losses import matched, named
from rtsep.train.mixers import Mixer
from rtsep.train.optimizers import optimizers
from rtsep.train.parallel import Group
from rtsep.train.state import Run
from rtsep.train.teacher import Taught

VALIDATION_BATCHES = 8
LIMIT_DB = 20.0
"""Validation scores are clipped to plus or minus this, in dB."""


@dataclass(frozen=True)
class Schedule:
    """Length, learning rate and loss of a training run.

    Attributes
    ----------
    steps
        Number of batches.
    learning_rate, warmup
        Learning rate of AdamW, and the number of steps to reach it. It stays there, then falls to
        zero, so that a run with more steps goes on from any state saved before (Haegele et al.,
        "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS 2024).
    fall
        Share of the training, at its end, in which the rate falls.
    matrices
        Learning rate of Muon, which then trains the matrices; it changes in the same proportion.
        See :func:`rtsep.train.optimizers.optimizers`.
    average
        Decay of the exponential moving average of the weights; checkpoints contain the average.
    validate_every
        Steps between validations and checkpoints.
    loss, compressed
        Name in :data:`rtsep.train.losses.LOSSES`, and the weight of the distance of compressed
        spectra beside the SNR: a higher weight improves PESQ, a lower one SNR.
    minutes
        If given, replaces ``steps``: training ends after this time.
    half
        Multiply in bfloat16 on the CPU too, if it has instructions for it.
    compiled
        The same, with the network compiled: twice as fast on such processors. It needs a C++
        compiler; without one the network is not compiled.

    Raises
    ------
    ValueError
        Unknown loss, no time to train, a learning rate of 0, or a fall outside 0 to 1.
    """

    steps: int
    learning_rate: float = 2e-3
    matrices: float | None = None
    warmup: int = 200
    fall: float = 0.2
    average: float = 0.999
    validate_every: int = 500
    loss: str = "snr"
    compressed: float = 20.0
    minutes: float | None = None
    half: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        """Check loss, duration and learning rates with their fall."""
        named(self.loss)
        for name in ("steps", "validate_every", "minutes", "learning_rate", "matrices"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be more than 0, not {value}")
        if not 0 < self.fall <= 1:
            raise ValueError(f"fall must be more than 0 and at most 1, not {self.fall}")

    def done(self, step: int, seconds: float) -> float:
        """Return the completed share of the training, 0 to 1."""
        share = step / self.steps if self.minutes is None else seconds / (60 * self.minutes)
        return min(share, 1.0)

    def share(self, step: int, seconds: float) -> float:
        """Return the learning rate at ``step`` as a share of the highest."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        left = min((1.0 - self.done(step, seconds)) / self.fall, 1.0)
        return 1.0 - math.sqrt(1.0 - left)


def train(
    description: Description,
    schedule: Schedule,
    training: Mixer,
    validation: Mixer,
    folder: Path,
    group: Group,
    workers: int = 1,
    start: Path | None = None,
    teacher: Path | None = None,
) -> Path:
    """Train until the end of the schedule; resume the run in ``folder`` if there is one.

    Parameters
    ----------
    description
        The model; its ``training`` text goes into the checkpoints.
    training, validation
        Mixers; validation uses batches 0 to 7.
    folder
        Gets ``best.safetensors`` (averaged weights), ``resume.safetensors``, ``curve.csv`` and
        ``curve.png``.
    group
        The processes that train together; `training` mixes this process's share of a batch.
    workers
        Number of processes that mix.
    start
        Checkpoint from which a new run starts, instead of random weights.
    teacher
        Bundle whose output is learned, too; for the loss "taught".

    Returns
    -------
    Path
        Path of the checkpoint with the best validation score.

    Raises
    ------
    NotFiniteError
        Training diverged.
    StoppedError
        Ctrl-C was pressed; the run is saved first. A second Ctrl-C stops at once.
    CheckpointError
        ``folder`` contains a run of another model, or the weights of ``start`` do not fit.
    """
    _keep_freed_memory()
    torch.manual_seed(training.seed)
    model = description.build().to(group.device)
    frontend = Frontend(description.spec).to(group.device)
    compute = named(schedule.loss, schedule.compressed)
    compiled = schedule.compiled and _compiler()
    if compiled:
        model.compile()
    half = group.device.type == "cuda" or ((compiled or schedule.half) and _has_bfloat16())
    each = optimizers(model, schedule.learning_rate, schedule.matrices)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in each]
    run = Run(description, model, each)
    best, resume = folder / "best.safetensors", folder / "resume.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if resume.exists():
        run.restore(resume)
    elif start is not None:
        run.begin(start)
    over = schedule.done(run.step, run.seconds)
    if over >= 1.0:
        return best
    checks = [validation[i] for i in range(VALIDATION_BATCHES)] if group.rank == 0 else []
    batches = training if teacher is None else Taught(training, teacher)
    mixing = _loader(batches, run.step, schedule, workers)
    heard_s = training.batch_size * training.samples / description.spec.sample_rate
    run.heard_s = run.heard_s or run.step * heard_s  # older states lack it
    before, started = run.seconds, time.monotonic()
    journal = Journal(folder if group.rank == 0 else None, description.name, over, training.measure)
    with journal, _interrupts() as interrupted:
        for mixture, target, *control in mixing:
            share = schedule.share(run.step, run.seconds)
            for optimizer, rate in zip(each, rates, strict=True):
                optimizer.param_groups[0]["lr"] = share * rate
                optimizer.zero_grad()
            with torch.autocast(group.device.type, torch.bfloat16, half):
                pair = (x.to(group.device) for x in (mixture, target))
                loss = compute(_bound(model, control, frontend), frontend, *pair)
            loss.backward()
            loss = group.average(loss, model)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            if not torch.isfinite(loss + norm):
                kept = f"last good: {resume}" if resume.exists() else "no checkpoint was saved yet"
                raise NotFiniteError(f"the loss is not finite at step {run.step}; {kept}")
            for optimizer in each:
                optimizer.step()
            run.follow(schedule.average)
            run.step += 1
            run.heard_s += heard_s
            run.seconds = before + time.monotonic() - started
            stop, over = group.agreed(bool(interrupted), schedule.done(run.step, run.seconds))
            journal.step(run.step, over, loss.item(), heard_s, share * rates[0])
            if group.rank == 0 and (run.step % schedule.validate_every == 0 or over >= 1.0):
                score = validate(run, frontend, validation, checks)
                journal.validation(run.step, score)
                if not score <= run.best_db:  # keeps a first score of NaN, too
                    run.best_db = score
                    of = f" of {schedule.steps}" if schedule.minutes is None else ""
                    trained = {
                        **description.training,
                        "steps": f"{run.step}{of}",
                        "minutes": f"{run.seconds / 60:.0f}",
                        "hours": f"{run.heard_s / 3600:.1f}",
                    }
                    save(best, replace(description, training=trained), run.average)
                run.store(resume)
            if over >= 1.0:
                break
            if stop:
                if group.rank == 0:
                    run.store(resume)
                raise StoppedError(f"stopped at step {run.step}, saved in {resume}")
    return best


def _bound(model: Streaming, control: Sequence[Any], frontend: Frontend) -> Streaming:
    """Give a model the control of a batch, if there is one."""
    if not control:
        return model
    if not isinstance(model, Controlled):
        raise RecipeError("mixtures with a control train only models with controls")
    device = frontend.analysis.device
    values = {name: torch.as_tensor(x).to(device) for name, x in control[0].items()}
    if isinstance(model, Enrolling):
        values = {model.enrolled: model.enroller(frontend.analyse(values["spoken"]))}
    return Bound(model, values)


def _has_bfloat16() -> bool:
    """Return whether the CPU multiplies in bfloat16; others emulate it, three times slower."""
    can: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not in 2.9
    return any(can.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _compiler() -> bool:
    """Return whether a C++ compiler is there, which torch.compile needs."""
    found = shutil.which(os.environ.get("CXX", "g++")) is not None
    if not found:
        print("no C++ compiler (g++) found: the network is not compiled", file=sys.stderr)
    return found


def _loader(
    training: Mixer | Taught, step: int, schedule: Schedule, workers: int
) -> DataLoader[Any]:
    last = schedule.steps if schedule.minutes is None else len(training)
    return DataLoader(
        training,  # type: ignore[arg-type]  # has __getitem__ and __len__
        sampler=range(step, last),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_ignore_interrupts,
    )


def _ignore_interrupts(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Record the first Ctrl-C instead of raising, so a step completes; the next one raises."""
    seen: list[int] = []

    def note(number: int, _: object) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    old = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, old)


def _keep_freed_memory() -> None:
    """Let glibc keep freed large blocks; returning them to the kernel costs 40 % of a step."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def improvement(estimate: Tensor, target: Tensor, mixture: Tensor, measure: str) -> Tensor:
    """Return the improvement over the mixture in the first channel, dB, (streams, sources).

    Parameters
    ----------
    estimate, target, mixture
        (streams, samples, sources, channels); the mixture (streams, samples, channels).
    measure
        ``"SI-SDRi"`` of Le Roux et al. 2019, or ``"SNRi"``, which depends on the level.
    """

    def score(x: Tensor, s: Tensor) -> Tensor:
        if measure == "SI-SDRi":
            s = s * ((x * s).sum(1, keepdim=True) / (s.square().sum(1, keepdim=True) + 1e-9))
        return 10 * torch.log10(s.square().sum(1) / ((x - s).square().sum(1) + 1e-9) + 1e-9)

    first = target[..., 0]
    return score(estimate[..., 0], first) - score(mixture[:, :, :1], first)


@torch.no_grad()
def validate(
    run: Run, frontend: Frontend, mixer: Mixer, checks: Sequence[tuple[Any, ...]]
) -> float:
    """Return the mean improvement with averaged weights, over the judged audible sources."""
    device = frontend.analysis.device
    model = run.description.build().to(device).eval()
    model.load_state_dict(run.average)
    scores = []
    for mixture, target, *control in checks:
        x, s = (torch.from_numpy(samples).to(device) for samples in (mixture, target))
        y = separate(_bound(model, control, frontend), frontend, x)
        if mixer.exchangeable:
            y = matched(y, s, frontend.spec.sources)
        power = s.square().mean(dim=(1, 3))
        heard = (power > 1e-10) & (power.sum(dim=1, keepdim=True) - power > 1e-10)
        # The limit keeps a source that is not found at all from outweighing all others.
        better = improvement(y, s, x, mixer.measure)[:, : mixer.judged].clamp(-LIMIT_DB, LIMIT_DB)
        scores.append(better[heard[:, : mixer.judged]])
    return float(torch.cat(scores).mean())
