"""``rtsep train``: learns, stops, goes on, shares its work, and says what is wrong in one line."""

import csv
import functools
import math
import os
import shutil
import socket
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from rtsep.cli import main
from rtsep.evaluate.metrics import si_sdr_db
from rtsep.models.checkpoint import Description, read, save
from rtsep.nn.frontend import Frontend
from rtsep.nn.onnx import export
from rtsep.train.journal import Journal
from rtsep.train.loop import Schedule
from rtsep.train.losses import named
from rtsep.train.parallel import Group
from rtsep.train.recipe import parse
from tests.support.command import rtsep
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE_S
from tests.support.voices import mixtures

RATE = 8000
RECIPE = """
name = "voices"
model = "chandna"
[spec]
sample_rate = 8000
channels = 1
frontend = "stft"
window = "hann"
window_length = 256
hop_length = 64
chunk = 1
lookahead = 2
sources = ["low", "high"]
[options]
compression = 0.3
level_frames = 60
[schedule]
steps = 400
learning_rate = 4e-3
warmup = 20
average = 0.95
validate_every = 200
[mixtures]
seed = 1
batch_size = 4
seconds = 1.0
snr_db = [0.0, 0.0]
semitones = 0.0
noise_semitones = 0.0
"""

CHECKS = {"VALIDATION_SIZE": 4, "VALIDATION_S": 1.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Low voices as speech, high ones as what disturbs it."""
    folder = tmp_path_factory.mktemp("voices")
    rows = [("path", "split", "speaker_or_category", "role")]
    for split, seed, count in (("train", 1, 12), ("val", 2, 4)):
        _, sources = mixtures(count, 3 * RATE, RATE, seed)
        for i in range(count):
            for k, role in enumerate(("speech", "noise")):
                path = f"{split}-{i}-{role}.wav"
                soundfile.write(folder / path, sources[i, :, k, 0], RATE)
                rows.append((path, split, f"{role}{i % 4}", role))
    with (folder / "MANIFEST.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(autouse=True)
def few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validate on seconds of mixtures in place of minutes."""
    for name, value in CHECKS.items():
        monkeypatch.setattr(f"rtsep.train.recipe.{name}", value)


def recipe(folder: Path, *changes: tuple[str, str], name: str = "recipe.toml") -> Path:
    text = RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path


def command(*arguments: object, before: str = "") -> list[str]:
    """Train in another process, which runs some code first."""
    code = f"""
import sys
from rtsep.cli import main
from rtsep.train import recipe
vars(recipe).update({CHECKS})
{before}
main(sys.argv[1:])
"""
    return [sys.executable, "-c", code, "train", *map(str, arguments)]


def run(*arguments: object) -> str:
    """Train in this process; mixing has processes of its own in one test, see `command`."""
    result = rtsep("train", *arguments, "--workers", 0)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refused(*arguments: object) -> str:
    """The one sentence of a training that does not begin."""
    result = CliRunner().invoke(main, ["train", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    *_, sentence = result.stderr.strip().splitlines()
    assert "Traceback" not in result.output
    return sentence


def test_what_is_trained_and_exported_separates_unseen_voices(data: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, ("steps = 400", "steps = 120"), ("every = 200", "every = 60"))
    said = run(path, "--data", data, "--runs", tmp_path)
    best = tmp_path / "voices/best.safetensors"
    assert f"rtsep export {best}" in said
    for name in ("resume.safetensors", "curve.csv", "curve.png"):
        assert (tmp_path / "voices" / name).stat().st_size
    model = tmp_path / "voices.onnx"
    result = CliRunner().invoke(main, ["export", str(best), "-o", str(model)])
    assert result.exit_code == 0, result.output
    unseen, sources = mixtures(3, 3 * RATE, RATE, seed=99)
    improvements = []
    for i in range(3):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, unseen[i], RATE, subtype="FLOAT")
        arguments = ["separate", str(path), "-o", str(tmp_path), "--model", str(model)]
        assert CliRunner().invoke(main, arguments).exit_code == 0
        for k, source in enumerate(("low", "high")):
            estimate, _ = soundfile.read(tmp_path / f"{i}_{source}.wav")
            clean = sources[i, :, k, 0]
            improvements.append(si_sdr_db(estimate, clean) - si_sdr_db(unseen[i, :, 0], clean))
    assert np.mean(improvements) >= 2.0


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling networks needs g++")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.soak)])
def test_a_compiled_network_learns_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Traced and differentiated like a compiled one, but for the C++ compiler's two minutes."""
    traced = functools.partialmethod(torch.nn.Module.compile, backend=backend)
    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    short = (
        ("steps = 400", "steps = 4"),
        ("every = 200", "every = 2"),
        ("seconds = 1.0", "seconds = 0.5"),
    )
    losses = []
    for name, change in (("plain", ()), ("compiled", (("warmup", "compiled = true\nwarmup"),))):
        run(recipe(tmp_path, *short, *change), "--data", data, "--runs", tmp_path / name)
        with (tmp_path / name / "voices/curve.csv").open() as file:
            losses.append([float(row["loss"]) for row in csv.DictReader(file)])
    np.testing.assert_allclose(losses[1], losses[0], atol=0.2)  # in dB; products of 8 bits


def test_without_a_compiler_training_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    path = recipe(tmp_path, ("steps = 400", "steps = 2"), ("warmup", "compiled = true\nwarmup"))
    done = rtsep("train", path, "--data", data, "--runs", tmp_path, "--workers", 0)
    assert done.exit_code == 0
    assert "no C++ compiler (g++) found: the network is not compiled" in done.stderr


_STOPPED = """
import os, signal
from rtsep.train.journal import Journal
validation = Journal.validation
def stop(*arguments):
    validation(*arguments)
    os.kill(os.getpid(), signal.SIGINT)
Journal.validation = stop
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
"""A training that gets Ctrl-C after its first validation."""


def test_ctrl_c_keeps_the_run_and_the_same_command_ends_it(data: Path, tmp_path: Path) -> None:
    short = ("steps = 400", "steps = 12"), ("every = 200", "every = 4")
    path = recipe(tmp_path, *short, ("seconds = 1.0", "seconds = 0.5"))
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run(path, "--data", data, "--runs", whole)
    arguments = [path, "--data", data, "--runs", halves]
    stopped = command(*arguments, before=_STOPPED)
    done = subprocess.run(stopped, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 130
    assert "the same command, without --fresh, resumes it" in done.stderr
    assert "Traceback" not in done.stderr
    kept = read(halves / "voices/resume.safetensors")[1]["progress"]
    assert 4 <= kept[0] < 12
    run(*arguments)
    for name in ("best", "resume"):
        one, two = (read(f / f"voices/{name}.safetensors")[1] for f in (whole, halves))
        assert one.keys() == two.keys()
        for key in one.keys() - {"progress"}:
            assert torch.equal(one[key], two[key]), key
    assert len((halves / "voices/curve.csv").read_text().splitlines()) == 4
    # What is done is not done again, unless asked for.
    before = (halves / "voices/resume.safetensors").stat().st_mtime_ns
    run(*arguments)
    assert (halves / "voices/resume.safetensors").stat().st_mtime_ns == before
    anew = recipe(tmp_path, ("steps = 400", "steps = 1"))
    run(anew, "--data", data, "--runs", halves, "--fresh")
    assert read(halves / "voices/resume.safetensors")[1]["progress"][0] == 1
    assert len((halves / "voices/curve.csv").read_text().splitlines()) == 2


def test_two_processes_have_the_gradients_of_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torchrun tells its processes, without its own rendezvous; this is the first of them."""
    path = recipe(tmp_path, ("steps = 400", "steps = 1"))
    run(path, "--data", data, "--runs", tmp_path / "one")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in {**together, "RANK": "0", "GLOO_SOCKET_IFNAME": "lo"}.items():
        monkeypatch.setenv(name, value)
    arguments = (path, "--data", data, "--runs", tmp_path / "two")
    second = subprocess.Popen(
        command(*arguments, "--workers", 0), cwd=ROOT, text=True, stdout=-1, stderr=-1,
        env={**os.environ, "RANK": "1"},
    )  # fmt: skip
    try:
        run(*arguments)
        _, err = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 0, err
    finally:
        second.kill()
    one, two = (read(tmp_path / f"{n}/voices/resume.safetensors")[1] for n in ("one", "two"))
    moments = [key for key in one if key.endswith(".exp_avg")]  # after one step, a tenth of them
    assert len(moments) == sum(key.startswith("model.") for key in one)
    for key in moments:
        scale = float(one[key].abs().max())
        assert scale > 0
        torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-4 * scale)


def test_minutes_end_the_training(data: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path)
    run(path, "--data", data, "--runs", tmp_path, "--minutes", 0.03)
    steps, _, seconds, heard_s = read(tmp_path / "voices/resume.safetensors")[1]["progress"]
    assert steps >= 1
    assert seconds >= 1.8 and heard_s == 4.0 * steps
    schedule = Schedule(**tomllib.loads(RECIPE)["schedule"], minutes=2.0)
    assert schedule.share(500, 0.0) == pytest.approx(1.0)
    assert schedule.share(500, 60.0) == pytest.approx(1.0)
    assert 0.0 < schedule.share(500, 110.0) < 1.0
    assert schedule.share(500, 120.0) == pytest.approx(0.0)
    assert schedule.share(4, 60.0) == pytest.approx(0.25)  # warming up, still


def test_what_cannot_be_trained_is_one_sentence(data: Path, tmp_path: Path) -> None:
    def sentence(*changes: tuple[str, str], where: Path = data) -> str:
        return refused(recipe(tmp_path, *changes), "--data", where, "--runs", tmp_path / "runs")

    assert "can't be read: No such file" in refused(tmp_path / "none.toml", "--data", data)
    assert "is no recipe" in sentence(("[mixtures]", "[mixtures"))
    assert "unknown model 'no'" in sentence(('"chandna"', '"no"'))
    assert "unknown loss 'loud'" in sentence(("warmup = 20", 'loss = "loud"'))
    assert "unexpected keyword argument 'pace'" in sentence(("warmup = 20", "pace = 20"))
    assert "unexpected keyword argument 'snr'" in sentence(("snr_db", "snr"))
    assert "the recipe has no mixtures" in sentence(("[mixtures]", "[mixture]"))
    kinds = "there are: speech, speakers, conversation, enrolled, music"
    assert kinds in sentence(("seed = 1", 'seed = 1\nkind = "x"'))
    assert "mixtures are mono" in sentence(("channels = 1", "channels = 2"))
    assert "batch_size must be more than 0" in sentence(("batch_size = 4", "batch_size = 0"))
    assert "there is no stem 'high'" in sentence(
        ("seed = 1", 'seed = 1\nkind = "music"'),
        ("snr_db = [0.0, 0.0]\n", ""),
        ("noise_semitones = 0.0\n", ""),
    )
    assert "no known layout" in sentence(where=tmp_path)
    assert "there is no such folder" in sentence(where=tmp_path / "none")
    minutes = refused(recipe(tmp_path), "--data", data, "--minutes", 0)
    assert "minutes must be more than 0, not 0.0" in minutes
    assert not (tmp_path / "runs/voices/resume.safetensors").exists()


def test_a_run_of_another_model_is_not_gone_on_with(data: Path, tmp_path: Path) -> None:
    path, resume = recipe(tmp_path), tmp_path / "voices/resume.safetensors"
    description = Description.parse(tomllib.loads(RECIPE))
    model = description.build()
    arguments = (path, "--data", data, "--runs", tmp_path, "--workers", 0)
    other = Description("voices", "convtasnet", description.spec, {"size": "small"})
    save(resume, other, model.state_dict())
    assert "trained with another model than the recipe's: convtasnet" in refused(*arguments)
    save(resume, description, model.state_dict())
    assert "is no training state of this model" in refused(*arguments)

    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"model": Trap()}, resume)
    assert "no safetensors checkpoint" in refused(*arguments)
    assert not (tmp_path / "sprung").exists()


def test_a_board_gets_what_the_curve_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def close(self) -> None:
            written.append(("closed", 0.0, 0))

    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    with Journal(tmp_path, "x", 0.0, "SI-SDRi") as journal:
        journal.step(20, 0.5, 1.5, 3.0, 1e-3)
        journal.validation(20, 4.0)
    assert written == [
        ("loss", 1.5, 20), ("learning rate", 1e-3, 20), ("SI-SDRi in dB", 4.0, 20),
        ("closed", 0.0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["chandna", "convtasnet", "dilated"])
def test_half_precision_trains_every_architecture(model: str) -> None:
    fields = tomllib.loads(RECIPE) | {"model": model, "options": {}}
    if model != "chandna":
        fields["spec"]["lookahead"] = 0
        fields["options"] = {"size": "small"}
    torch.manual_seed(0)
    description, _, _ = parse(fields)
    net, frontend = description.build(), Frontend(description.spec)
    mixture, target = map(torch.from_numpy, mixtures(2, RATE // 4, RATE, 0))
    compute = named("attractors" if model == "dilated" else "snr")
    exact = compute(net, frontend, mixture, target)
    with torch.autocast("cpu", torch.bfloat16):
        loss = compute(net, frontend, mixture, target)
    assert loss.item() == pytest.approx(exact.item(), rel=0.1, abs=0.3)
    loss.backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize(("name", "most_ms"), [("speakers", 20.0), ("music", 24.0)])
@pytest.mark.parametrize("exported", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_shipped_recipes_make_low_latency_bundles(
    name: str, most_ms: float, exported: bool
) -> None:
    fields = tomllib.loads((ROOT / f"export/{name}.toml").read_text("utf-8"))
    description, schedule, _ = parse(fields)
    spec = description.spec
    late = spec.synthesis_length + spec.lookahead * spec.hop_length
    assert 1000 * late / spec.sample_rate <= most_ms
    model, frontend = description.build(), Frontend(spec)
    target = 0.1 * torch.randn(1, 10 * spec.hop_length, len(spec.sources), 1)
    loss = named(schedule.loss)(model, frontend, target.sum(dim=2), target)
    assert math.isfinite(loss.item())
    texts = description.texts()
    for term in (
        ("Apache-2.0", "openairlib") if name == "speakers" else ("AVL Drumkits", "Vocadito")
    ):
        assert term in texts["training"]
    if exported:
        bundle = export(model.eval(), spec, texts)
        assert bundle.spec == spec and bundle.metadata["training"] == texts["training"]


def test_processes_that_share_a_batch_agree_alone_too() -> None:
    alone = Group(0, 1, torch.device("cpu"))
    assert alone.agreed(True, 0.25) == (True, 0.25)
    model = torch.nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    assert alone.average(torch.tensor(2.0), model).item() == 2.0
