"""Training: real learning in seconds, mixtures that repeat, checkpoints that hold."""

import csv
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from threadpoolctl import threadpool_info

from rtsep.errors import CheckpointError, NotFiniteError
from rtsep.models import build
from rtsep.models.checkpoint import Description, load, read, save
from rtsep.nn.recurrent import Recurrent
from rtsep.spec import Spec
from rtsep.train.corpus import Corpus
from rtsep.train.growth import grown
from rtsep.train.layouts import table
from rtsep.train.loop import Schedule, train
from rtsep.train.losses import (
    compressed_spectrum,
    dissimilarity,
    matched,
    multi_resolution,
    negative_snr,
)
from rtsep.train.mixers import SpeechInNoise
from rtsep.train.optimizers import optimizers
from rtsep.train.parallel import Group, limit_threads
from rtsep.train.state import Run

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
            length = 2 if key == "progress" else len(value.reshape(-1))  # its third is the time
            assert torch.equal(value.reshape(-1)[:length], right[key].reshape(-1)[:length]), key


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


def test_outputs_for_more_sources_start_as_those_of_fewer(tmp_path: Path) -> None:
    options = {"features": 24, "channels": 32, "taps": 2}
    two = replace(DESCRIPTION, model="banded", options=options)
    three = replace(two, spec=replace(SPEC, sources=("speaker1", "speaker2", "noise")))
    given = two.build().state_dict()
    save(tmp_path / "two.safetensors", two, given)
    model = three.build()
    Run(three, model, optimizers(model, 1e-3)).begin(tmp_path / "two.safetensors")
    for key, value in model.state_dict().items():
        repeated = torch.cat([given[key]] * (2 if key.startswith("masks.") else 1))
        assert torch.equal(value, repeated), key
    x = torch.randn(1, 20, 1, 2, SPEC.window_length // 2 + 1)
    with torch.no_grad():
        fewer = two.build()
        fewer.load_state_dict(given)
        few, more = (m(x, m.initial_state(1))[0] for m in (fewer, model))
    torch.testing.assert_close(more[:, :, :2], few[:, :, :1].expand(-1, -1, 2, -1, -1, -1))


@pytest.mark.parametrize("sources", [("speech", "noise"), ("speaker1", "speaker2", "noise")])
def test_a_larger_network_starts_as_the_smaller_one(
    tmp_path: Path, sources: tuple[str, ...]
) -> None:
    spec = replace(SPEC, sources=sources)
    small = replace(DESCRIPTION, model="banded", spec=spec, options={"size": "small"})
    larger = {"features": 24, "channels": 32, "blocks": 4, "context": 3, "taps": 2}
    deep = replace(small, options=larger)
    given = small.build()
    save(tmp_path / "small.safetensors", small, given.state_dict())
    model = deep.build()
    Run(deep, model, optimizers(model, 1e-3)).begin(tmp_path / "small.safetensors")
    x = torch.randn(1, 20, 1, 2, SPEC.window_length // 2 + 1)
    with torch.no_grad():
        before, after = (m(x, m.initial_state(1))[0] for m in (given, model))
    torch.testing.assert_close(after, before)


def test_new_units_of_a_wider_network_are_not_heard_at_first() -> None:
    old, new = Recurrent(6, 4), Recurrent(8, 10)
    new.load_state_dict(grown(old.state_dict(), new.state_dict()))
    x = torch.randn(1, 30, 2, 8)
    before = old(x[..., :6], torch.zeros(1, 2, 4))
    after = new(x, torch.zeros(1, 2, 10))
    torch.testing.assert_close(after[..., :4], before)
    assert after[..., 4:].abs().max() > 0.01


def test_a_smaller_network_cannot_start_from_a_larger_one(tmp_path: Path) -> None:
    large = replace(DESCRIPTION, model="banded", options={"size": "base"})
    save(tmp_path / "large.safetensors", large, large.build().state_dict())
    for changes, told in (
        ({"options": {"size": "small"}}, ", not"),
        (
            {
                "options": {"features": 32, "channels": 48, "taps": 2},
                "spec": replace(SPEC, sources=("speaker1", "speaker2", "noise")),
            },
            "for fewer sources",
        ),
    ):
        other = replace(large, **changes)
        model = other.build()
        run = Run(other, model, optimizers(model, 1e-3))
        with pytest.raises(CheckpointError, match=rf"not fit the model to train: .* is .*{told}"):
            run.begin(tmp_path / "large.safetensors")


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


def test_losses_are_least_for_the_target() -> None:
    target = torch.randn(2, 4000, 2, 1, generator=torch.Generator().manual_seed(0))
    worse = target.flip(2)
    for loss in (negative_snr, compressed_spectrum, multi_resolution):
        assert float(loss(target, target)) < float(loss(0.9 * target, target))
        assert float(loss(0.9 * target, target)) < float(loss(worse, target))
        assert torch.isfinite(loss(torch.zeros_like(target), torch.zeros_like(target)))
    assert float(negative_snr(torch.zeros_like(target), target)) == pytest.approx(0.0, abs=0.01)


def test_only_sources_that_differ_in_a_number_change_places() -> None:
    target = torch.randn(3, 400, 3, 1, generator=torch.Generator().manual_seed(0))
    names = ("speaker1", "speaker2", "noise")
    assert torch.equal(matched(target[:, :, [1, 0, 2]], target, names), target)
    moved = target[:, :, [2, 0, 1]]  # the noise is among the speakers, where it must not be sought
    assert torch.equal(matched(moved, target, names)[:, :, 2], moved[:, :, 2])


@pytest.mark.parametrize("count", [2, 3])
def test_matched_finds_the_order_of_each_stream(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(5, 400, count, 1, generator=generator)
    noisy = target + 0.3 * torch.randn(target.shape, generator=generator)
    orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(5)])
    shuffled = torch.stack([x[:, order] for x, order in zip(noisy, orders, strict=True)])
    assert torch.equal(matched(shuffled, target), noisy)
    # The least over all orders, by the formula written out.
    estimate = torch.randn(target.shape, generator=generator).requires_grad_()
    least = []
    for x, t in zip(estimate.detach(), target, strict=True):
        costs = [
            float(negative_snr(x[None, :, list(order)], t[None]))
            for order in permutations(range(count))
        ]
        least.append(min(costs))
    loss = negative_snr(matched(estimate, target), target)
    assert loss.item() == pytest.approx(np.mean(least), abs=1e-4)
    (gradient,) = torch.autograd.grad(loss, estimate)
    assert torch.isfinite(gradient).all() and torch.count_nonzero(gradient) == gradient.numel()


def test_negative_snr_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    target, estimate = rng.standard_normal((2, 3, 500, 2, 1))
    expected = []
    for x, t in zip(estimate, target, strict=True):
        floor = 1e-3 * np.sum(t.sum(axis=1) ** 2)
        for source in range(2):
            error = np.sum((x - t)[:, source] ** 2) + floor
            expected.append(10 * np.log10(error / (np.sum(t[:, source] ** 2) + floor)))
    loss = negative_snr(*(torch.from_numpy(x).float() for x in (estimate, target)))
    assert float(loss) == pytest.approx(np.mean(expected), abs=1e-4)


def spectrum(x: np.ndarray, window: int, overlap: int = 4) -> np.ndarray:
    """Complex spectra (frames, bins), ``overlap`` windows over each sample."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    padded = np.pad(x, (window // 2, window // 2), mode="reflect")
    starts = range(0, len(padded) - window + 1, window // overlap)
    return np.array([np.fft.rfft(hann * padded[s : s + window]) for s in starts]) / window**0.5


def test_compressed_spectrum_and_multi_resolution_are_their_formulas() -> None:
    rng = np.random.default_rng(0)
    target, estimate = rng.standard_normal((2, 2, 2000, 2, 1))
    compressed, resolutions = [], {128: [0.0, 0.0], 256: [0.0, 0.0]}
    for x, t in zip(estimate, target, strict=True):
        level = np.sqrt(np.mean(t.sum(axis=1) ** 2))
        pairs = [(x[:, i, 0] / level, t[:, i, 0] / level) for i in range(2)]
        for mine, theirs in pairs:
            z, w = spectrum(mine, 256, 2), spectrum(theirs, 256, 2)
            z, w = (s / np.abs(s) * np.abs(s) ** 0.3 for s in (z, w))
            magnitudes = np.mean((np.abs(z) - np.abs(w)) ** 2)
            compressed.append(magnitudes + 0.3 * np.mean(np.abs(z - w) ** 2))
        for window, sums in resolutions.items():
            m, n = (np.abs([spectrum(p[i], window) for p in pairs]) for i in range(2))
            sums[0] += np.sqrt(np.sum((m - n) ** 2) / np.sum(n**2)) / 2
            sums[1] += np.mean(np.abs(np.log(m) - np.log(n))) / 2
    tensors = [torch.from_numpy(x).float() for x in (estimate, target)]
    assert float(compressed_spectrum(*tensors, 256)) == pytest.approx(np.mean(compressed), rel=1e-3)
    expected = np.mean([sum(sums) for sums in resolutions.values()])
    assert float(multi_resolution(*tensors, (128, 256))) == pytest.approx(expected, rel=1e-3)


MUSIC = ("vocals", "drums", "bass", "other")


def distance(x: np.ndarray, y: np.ndarray, window: int) -> float:
    """Mean squared difference of magnitude spectra, re a hop of a quarter window."""
    return float(np.mean((np.abs(spectrum(x, window)) - np.abs(spectrum(y, window))) ** 2))


@pytest.mark.parametrize("names", [MUSIC, ("speech", "noise"), ("other", "bass", "vocals")])
def test_dissimilarity_is_the_papers_formula(names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    target = rng.standard_normal((2, 2000, len(names), 1))
    estimate = rng.standard_normal(target.shape)
    weights = {
        MUSIC: [
            [1, -0.1, -0.1, -0.3],
            [-0.1, 1, -0.1, -0.2],
            [-0.1, -0.1, 1, -0.2],
            [0, 0, 0, 0],
        ],
        ("speech", "noise"): [[1, -0.1], [-0.1, 1]],
        ("other", "bass", "vocals"): [[0, 0, 0], [-0.2, 1, -0.1], [-0.3, -0.1, 1]],
    }[names]
    expected = 0.0
    for x, t in zip(estimate, target, strict=True):
        level = np.sqrt(np.mean(t.sum(axis=1) ** 2))
        for i, row in enumerate(weights):
            for j, weight in enumerate(row):
                apart = distance(x[:, i, 0] / level, t[:, j, 0] / level, 256)
                expected += weight * apart / len(target)
    tensors = (torch.from_numpy(x).float() for x in (estimate, target))
    loss = dissimilarity(*tensors, names, 256, alpha=0.1, beta=0.2, beta_voc=0.3)
    assert float(loss) == pytest.approx(expected, rel=1e-3)


def test_dissimilarity_knows_the_order_and_is_level_at_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 4000, 4, 1, generator=generator).requires_grad_()
    right = dissimilarity(target, target.detach(), MUSIC)
    assert right < dissimilarity(target.detach().flip(2), target.detach(), MUSIC)
    swapped = target.detach()[:, :, [1, 0, 2, 3]]
    assert right < dissimilarity(swapped, target.detach(), MUSIC)
    silent = torch.zeros(2, 4000, 4, 1)
    assert torch.isfinite(dissimilarity(silent, silent, MUSIC))
    # Without the terms to the others, the target is the minimum and the gradient there is zero.
    own = dissimilarity(target, target.detach(), MUSIC, alpha=0.0, beta=0.0, beta_voc=0.0)
    (gradient,) = torch.autograd.grad(own, target)
    assert not torch.count_nonzero(gradient)
    (gradient,) = torch.autograd.grad(right, target)
    assert torch.count_nonzero(gradient[:, :, :3])
    assert not torch.count_nonzero(gradient[:, :, 3])  # "other" is what is left


def test_a_loss_there_is_not_is_named_before_training() -> None:
    with pytest.raises(ValueError, match=r"unknown loss 'loudness'; there are: .*snr, pit, "):
        Schedule(steps=1, loss="loudness")


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


def test_the_learning_rate_stays_then_falls_over_the_last_fifth() -> None:
    schedule = Schedule(steps=1000, warmup=10)
    shares = [schedule.share(step, 0.0) for step in range(1001)]
    assert shares[4] == pytest.approx(0.5)
    assert shares[10:801] == [pytest.approx(1.0)] * 791
    assert all(later < earlier for earlier, later in pairwise(shares[800:]))
    assert shares[1000] == 0.0
    timed = replace(schedule, minutes=1.0)
    assert timed.share(10, 47.0) == 1.0 > timed.share(10, 49.0) > timed.share(10, 60.0) == 0.0


def test_only_matrices_are_trained_by_muon() -> None:
    model = build("banded", replace(SPEC, lookahead=0), {"size": "small"})
    adam, muon = optimizers(model, 1e-3, 5e-3)
    names = {id(weights): name for name, weights in model.named_parameters()}
    chosen = {names[id(w)] for w in muon.param_groups[0]["params"]}
    assert {"blocks.0.gru.unit.recurrent", "blocks.0.out.weight", "gather.weight"} <= chosen
    assert not chosen & {"embedding", "enter.conv.weight", "blocks.0.first.weight"}
    assert len(chosen) + len(adam.param_groups[0]["params"]) == len(names)


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
