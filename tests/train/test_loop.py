"""Training: real learning in seconds, mixtures that repeat, checkpoints that hold."""

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from threadpoolctl import threadpool_info

from rtsep.errors import CheckpointError, NotFiniteError
from rtsep.models import build
from rtsep.models.checkpoint import Description, load, read, save
from rtsep.spec import Spec
from rtsep.train.corpus import Corpus
from rtsep.train.layouts import table
from rtsep.train.loop import Schedule, train
from rtsep.train.mixers import SpeechInNoise
from rtsep.train.optimizers import optimizers
from rtsep.train.parallel import Group, limit_threads

SPEC = Spec(16000, 1, "stft", "hann", 256, 128, 1, 1, ("speech", "noise"))
DESCRIPTION = Description("small", "chandna", SPEC, {"compression": 0.3, "level_frames": 50.0})
RATE = 16000
ALONE = Group(0, 1, torch.device("cpu"))


def voice(seed: int, seconds: float = 2.0) -> np.ndarray:
    """Something like speech: syllables of a gliding harmonic tone below 4 kHz."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    pitch = rng.uniform(100, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 3) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * t + rng.uniform(0, 6)), 0, 1)
    return (0.2 * tone * syllables).astype(np.float32)


def hiss(seed: int, seconds: float = 2.0) -> np.ndarray:
    """Noise above the voice."""
    x = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    return (0.1 * np.diff(x, prepend=0.0)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of synthetic sources in the layout that is read."""
    root = tmp_path_factory.mktemp("corpus")
    rows = []
    for split, seeds in {"train": range(12), "val": range(50, 54)}.items():
        for seed in seeds:
            for kind, made in (("speech16k", voice), ("noise16k", hiss)):
                path = f"{kind}/{split}/{seed}.flac"
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(root / path, made(seed), RATE)
                rows.append((path, split, f"{kind}-{seed % 6}"))
    (root / "rir16k").mkdir()
    soundfile.write(root / "rir16k/room.flac", np.r_[0.9, np.zeros(400), 0.3].astype("f4"), RATE)
    rows.append(("rir16k/room.flac", "train", "room"))
    (root / "speech16k/train/broken.flac").write_bytes(b"fLaC but no more")
    rows.append(("speech16k/train/broken.flac", "train", "speech16k-0"))
    soundfile.write(root / "speech16k/train/silent.flac", np.zeros(RATE), RATE)
    rows.append(("speech16k/train/silent.flac", "train", "speech16k-0"))
    with (root / "MANIFEST.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "split", "speaker_or_category"])
        table.writerows(rows)
    return root


def mixer(folder: Path, split: str, seed: int = 1) -> SpeechInNoise:
    corpus = Corpus.load([row for row in table(folder) if row.split == split], RATE)
    return SpeechInNoise(corpus, ("speech", "noise"), seed, batch_size=4, samples=RATE)


@pytest.mark.soak
@pytest.mark.parametrize(("loss", "improvement_db"), [("snr", 3.0), ("chandna", 2.0)])
def test_a_few_seconds_of_training_separate_unseen_mixtures(
    folder: Path, tmp_path: Path, loss: str, improvement_db: float
) -> None:
    """Every day, tests/cli/test_train.py trains for as long, and exports."""
    schedule = Schedule(
        120, learning_rate=4e-3, warmup=20, validate_every=60, average=0.95, loss=loss
    )
    validation = replace(mixer(folder, "val", 9), snr_db=(0.0, 0.0))
    data = mixer(folder, "train")
    best = train(DESCRIPTION, schedule, data, validation, tmp_path, ALONE, workers=0)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["60", "120"]
    assert float(rows[-1]["improvement_db"]) >= improvement_db
    description, _ = load(best)
    assert description.training["steps"].endswith("of 120")


@pytest.mark.parametrize("matrices", [None, 5e-3])
def test_a_resumed_run_is_the_run_in_one_piece(
    folder: Path, tmp_path: Path, matrices: float | None
) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    schedule = Schedule(steps=6, warmup=2, validate_every=3, matrices=matrices)
    data, checks = mixer(folder, "train"), mixer(folder, "val")
    train(DESCRIPTION, schedule, data, checks, whole, ALONE, workers=0)

    class Stopped(SpeechInNoise):
        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            if index == 4:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    stopped = Stopped(data.corpus, data.sources, data.seed, data.batch_size, data.samples)
    with pytest.raises(KeyboardInterrupt):
        train(DESCRIPTION, schedule, stopped, checks, halves, ALONE, workers=0)
    train(DESCRIPTION, schedule, data, checks, halves, ALONE, workers=0)
    for name in ("best", "resume"):
        left, right = (read(f / f"{name}.safetensors")[1] for f in (whole, halves))
        assert left.keys() == right.keys()
        for key, value in left.items():
            kept = [0, 1, 3] if key == "progress" else ...  # its third is the time
            assert torch.equal(value[kept], right[key][kept]), key
    assert read(halves / "resume.safetensors")[1]["progress"][3] == 6 * 4.0  # seconds heard


def test_a_resumed_run_can_change_its_optimizers(folder: Path, tmp_path: Path) -> None:
    data, checks = mixer(folder, "train"), mixer(folder, "val")
    for steps, matrices in ((3, None), (6, 5e-3), (9, None)):
        schedule = Schedule(steps=steps, validate_every=3, matrices=matrices)
        train(DESCRIPTION, schedule, data, checks, tmp_path, ALONE, workers=0)
    _, kept = read(tmp_path / "resume.safetensors")
    assert kept["progress"][0] == 9
    assert all(name.endswith(("step", "exp_avg", "exp_avg_sq")) for name in kept if "optim" in name)


def test_a_new_run_can_start_from_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    given = DESCRIPTION.build().state_dict()
    save(tmp_path / "start.safetensors", DESCRIPTION, given)
    data, checks = mixer(folder, "train"), mixer(folder, "val")
    schedule = Schedule(steps=1, warmup=100, average=1.0, validate_every=1)
    start = tmp_path / "start.safetensors"
    best = train(DESCRIPTION, schedule, data, checks, tmp_path / "run", ALONE, 0, start)
    for key, value in load(best)[1].state_dict().items():
        torch.testing.assert_close(value, given[key], atol=1e-3, rtol=0)

    state = tmp_path / "run/resume.safetensors"  # of a training, of which the average is taken
    best = train(DESCRIPTION, schedule, data, checks, tmp_path / "next", ALONE, 0, state)
    average = read(state)[1]
    for key, value in load(best)[1].state_dict().items():
        torch.testing.assert_close(value, average[f"average.{key}"], atol=1e-3, rtol=0)

    other = replace(DESCRIPTION, options={"compression": 0.3, "level_frames": 50.0, "vertical": 8})
    with pytest.raises(CheckpointError, match="does not fit the model to train"):
        train(other, schedule, data, checks, tmp_path / "other", ALONE, 0, start)


def test_divergence_stops_and_names_the_last_good_checkpoint(folder: Path, tmp_path: Path) -> None:
    class Poisoned(SpeechInNoise):
        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            mixture, sources = super().__getitem__(index)
            return mixture, sources * (np.nan if index == 3 else 1.0)

    data = mixer(folder, "train")
    poisoned = Poisoned(data.corpus, data.sources, data.seed, data.batch_size, data.samples)
    schedule = Schedule(steps=9, validate_every=2)
    with pytest.raises(NotFiniteError, match=r"not finite at step 3; last good: .*resume"):
        train(DESCRIPTION, schedule, poisoned, mixer(folder, "val"), tmp_path, ALONE, workers=0)
    assert (tmp_path / "resume.safetensors").exists()


def test_what_a_schedule_can_not_have_is_named_before_training() -> None:
    with pytest.raises(ValueError, match=r"unknown loss 'loudness'; there are: .*snr, pit, "):
        Schedule(steps=1, loss="loudness")
    with pytest.raises(ValueError, match=r"matrices must be more than 0, not -0\.1"):
        Schedule(steps=1, matrices=-0.1)
    with pytest.raises(ValueError, match=r"fall must be more than 0 and at most 1, not 1\.5"):
        Schedule(steps=1, fall=1.5)


def test_checkpoints_round_trip_and_refuse_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a" / "model.safetensors"
    model = DESCRIPTION.build()
    save(path, DESCRIPTION, model.state_dict())
    description, loaded = load(path)
    assert description == DESCRIPTION
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert list(path.parent.iterdir()) == [path]

    other = replace(DESCRIPTION, spec=replace(SPEC, window_length=512))
    save(path, other, model.state_dict())
    with pytest.raises(CheckpointError, match="does not fit model 'chandna'"):
        load(path)
    torch.save({"weights": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match="no safetensors checkpoint"):
        load(path)
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        load(tmp_path / "missing")


def test_the_learning_rate_stays_then_falls() -> None:
    schedule = Schedule(steps=1000, warmup=10)
    shares = [schedule.share(step, 0.0) for step in range(1001)]
    assert shares[4] == pytest.approx(0.5)
    assert shares[10:801] == [pytest.approx(1.0)] * 791
    assert all(later < earlier for earlier, later in pairwise(shares[800:]))
    assert shares[1000] == 0.0
    timed = replace(schedule, minutes=1.0)
    assert timed.share(10, 47.0) == 1.0 > timed.share(10, 49.0) > timed.share(10, 60.0) == 0.0
    longer = replace(schedule, fall=0.5)
    assert longer.share(500, 0.0) == 1.0 > longer.share(510, 0.0) > longer.share(1000, 0.0) == 0.0


def test_matrices_and_convolutions_are_trained_by_muon() -> None:
    model = build("banded", replace(SPEC, lookahead=0), {"size": "small"})
    adam, muon = optimizers(model, 1e-3, 5e-3)
    names = {id(weights): name for name, weights in model.named_parameters()}
    chosen = {names[id(w)] for w in muon.param_groups[0]["params"]}
    assert {"blocks.0.gru.unit.recurrent", "blocks.0.out.weight", "gather.weight"} <= chosen
    assert "enter.conv.weight" in chosen
    assert not chosen & {"embedding", "enter.conv.bias", "blocks.0.first.weight"}
    assert len(chosen) + len(adam.param_groups[0]["params"]) == len(names)


def test_a_convolution_steps_like_the_matrix_of_its_kernels() -> None:
    torch.manual_seed(0)
    convolution, matrix = torch.nn.Conv2d(4, 3, 3), torch.nn.Linear(36, 3)
    gradient = torch.randn(3, 4, 3, 3)
    for layer in (convolution, matrix):
        layer.weight.data = torch.ones(3, 4, 3, 3).reshape(layer.weight.shape)
        (_, muon) = optimizers(layer, 1e-3, 0.1)
        for factor in (1.0, 0.5):
            layer.weight.grad = factor * gradient.reshape(layer.weight.shape)
            muon.step()
    assert convolution.weight.shape == convolution.weight.grad.shape == (3, 4, 3, 3)
    assert torch.equal(convolution.weight.flatten(1), matrix.weight)
    assert (convolution.weight - 1).abs().max() > 0.01


def test_threads_are_limited_in_torch_and_in_the_blas() -> None:
    count = torch.get_num_threads()
    try:
        for threads in (2, 1):
            limit_threads(threads)
            assert torch.get_num_threads() == threads
            blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
            assert blas and set(blas) == {threads}
    finally:
        limit_threads(count)
