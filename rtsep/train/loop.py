"""The training loop: recipe and mixtures in, the best checkpoint out."""

from __future__ import annotations

import csv
import ctypes
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader

from rtsep.models.checkpoint import Description, read, save
from rtsep.nn.frontend import Frontend, separate
from rtsep.nn.streaming import Streaming
from rtsep.train.data import Mixer
from rtsep.train.losses import named


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes
    ----------
    steps
        Batches in all; the learning rate falls to zero over them (warm-up, then cosine).
    learning_rate, warmup
        Peak rate of AdamW and the steps to reach it.
    average
        Decay of the exponential moving average of the weights, which is what is kept.
    validate_every
        Steps between validations and checkpoints.
    loss
        One of :data:`rtsep.train.losses.LOSSES`, by name.

    Raises
    ------
    ValueError
        Unknown loss.
    """

    steps: int
    learning_rate: float = 2e-3
    warmup: int = 200
    average: float = 0.999
    validate_every: int = 500
    loss: str = "snr"

    def __post_init__(self) -> None:
        """Refuse a loss there is not."""
        named(self.loss)

    def rate(self, step: int) -> float:
        """Learning rate of ``step``."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class NotFiniteError(RuntimeError):
    """The loss became NaN or Inf; the message names the last good checkpoint."""


def si_sdr_improvement(estimate: Tensor, target: Tensor, mixture: Tensor) -> Tensor:
    """SI-SDR (Le Roux et al. 2019) of the first source over the mixture's, in dB, per stream."""

    def si_sdr(x: Tensor, s: Tensor) -> Tensor:
        s = s * ((x * s).sum(1, keepdim=True) / (s.square().sum(1, keepdim=True) + 1e-9))
        return 10 * torch.log10(s.square().sum(1) / ((x - s).square().sum(1) + 1e-9) + 1e-9)

    first = target[:, :, 0, 0]
    return si_sdr(estimate[:, :, 0, 0], first) - si_sdr(mixture[:, :, 0], first)


def train(
    description: Description,
    schedule: Schedule,
    training: Mixer,
    validation: Mixer,
    folder: Path,
    workers: int = 1,
) -> Path:
    """Train until ``schedule.steps``, from where ``folder`` left off.

    Parameters
    ----------
    description
        The model; its ``training`` text goes into the checkpoints.
    training, validation
        Mixtures; validation uses batches 0 ... 7.
    folder
        Gets ``best.safetensors`` (averaged weights), ``resume.safetensors`` and ``curve.csv``.
    workers
        Processes that mix.

    Returns
    -------
    Path
        The best checkpoint by validation SI-SDR improvement.

    Raises
    ------
    NotFiniteError
        Training diverged.
    """
    _keep_freed_memory()
    torch.manual_seed(training.seed)
    model = description.build()
    frontend = Frontend(description.spec)
    compute = named(schedule.loss)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4, betas=(0.9, 0.98))
    average = {k: v.clone() for k, v in model.state_dict().items()}
    best, resume = folder / "best.safetensors", folder / "resume.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    step, best_db = 0, -math.inf
    if resume.exists():
        step, best_db = _restore(resume, model, optimizer, average)
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        training,  # type: ignore[arg-type]  # anything with __getitem__ and __len__ is a data set
        sampler=range(step, schedule.steps),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    checks = [validation[i] for i in range(8)]
    loss_mean, seconds = 0.0, 0.0
    columns = ("[progress.description]{task.description}", "{task.fields[note]}")
    with Progress(
        TextColumn(columns[0]),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn(columns[1]),
    ) as progress:
        bar = progress.add_task(description.name, total=schedule.steps, completed=step, note="")
        started = time.monotonic()
        for mixture, target in loader:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            loss = compute(model, frontend, mixture, target)
            if not torch.isfinite(loss):
                raise NotFiniteError(f"the loss is not finite at step {step}; last good: {resume}")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            keep = min(schedule.average, (step + 1) / (step + 10))
            with torch.no_grad():
                for name, value in model.state_dict().items():
                    average[name].lerp_(value, 1 - keep)
            step += 1
            loss_mean += (loss.item() - loss_mean) / 100
            seconds += mixture.shape[0] * mixture.shape[1] / description.spec.sample_rate
            progress.update(bar, completed=step, note=f"loss {loss_mean:.2f}")
            if step % schedule.validate_every == 0 or step == schedule.steps:
                score = _validate(description, average, frontend, checks)
                speed = seconds / (time.monotonic() - started)
                progress.console.print(
                    f"step {step}: SI-SDRi {score:.2f} dB, loss {loss_mean:.2f}, {speed:.0f}x"
                )
                _log(folder / "curve.csv", step, score, loss_mean)
                if score > best_db:
                    best_db = score
                    trained = {
                        **description.training,
                        "steps": f"{step} of {schedule.steps}",
                    }
                    save(best, replace(description, training=trained), average)
                _store(resume, description, model, optimizer, average, step, best_db)
    return best


def _keep_freed_memory() -> None:
    """Let glibc reuse large blocks; giving each back to the kernel costs 40 % of a step here."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


@torch.no_grad()
def _validate(
    description: Description,
    weights: dict[str, Tensor],
    frontend: Frontend,
    checks: list[tuple[np.ndarray, np.ndarray]],
) -> float:
    model = description.build()
    model.load_state_dict(weights)
    scores = []
    for mixture, target in checks:
        x, s = torch.from_numpy(mixture), torch.from_numpy(target)
        heard = s.square().mean(dim=(1, 3)).amin(dim=1) > 1e-10  # neither source is silent
        improvement = si_sdr_improvement(separate(model, frontend, x), s, x)
        scores.append(improvement[heard])
    return float(torch.cat(scores).mean())


def _log(path: Path, step: int, score: float, loss: float) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        if new:
            rows.writerow(["step", "si_sdr_improvement_db", "loss"])
        rows.writerow([step, f"{score:.3f}", f"{loss:.4f}"])


def _store(
    path: Path,
    description: Description,
    model: Streaming,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    step: int,
    best_db: float,
) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v for k, v in state.items()}
    tensors["progress"] = torch.tensor([step, best_db], dtype=torch.float64)
    save(path, description, tensors)


def _restore(
    path: Path, model: Streaming, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> tuple[int, float]:
    _, tensors = read(path)
    model.load_state_dict({k: tensors[f"model.{k}"] for k in model.state_dict()})
    for name in average:
        average[name] = tensors[f"average.{name}"]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return int(tensors["progress"][0]), float(tensors["progress"][1])
