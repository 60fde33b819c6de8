"""Looking, separating files, exporting: what comes out, and one sentence for whatever can't be."""

from __future__ import annotations

import pickle
import platform
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numba
import numpy as np
import onnxruntime
import pytest
import soundfile
from click.testing import CliRunner

from rtsep import __version__, weights
from rtsep.cli import main, show
from rtsep.spec import Spec
from tests.support import models
from tests.support.audio import band, recording
from tests.support.command import refused, rtsep

COMMANDS = main.list_commands(None)  # type: ignore[arg-type]
SHIPPED = weights.names()


def test_version_tells_what_it_is_built_of() -> None:
    command = [sys.executable, "-m", "rtsep", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, machine, packages, sound = done.stdout.splitlines()
    assert first == f"rtsep, version {__version__}"
    assert f"Python {platform.python_version()}" in machine and platform.machine() in machine
    for package in (np, numba, onnxruntime):
        assert f" {package.__version__}" in f" {packages}"
    assert sound.startswith("PortAudio")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_how_to_complete(shell: str) -> None:
    script = rtsep("completion", shell).stdout
    assert f"_RTSEP_COMPLETE={shell}_complete" in script
    assert re.search(rf"^#   .*rtsep completion {shell}", script, re.MULTILINE)
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert rtsep("completion", "tcsh").exit_code == 2


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rtsep se", {"separate", "serve"}),
        ("rtsep ", {*COMMANDS}),
        ("rtsep --ver", {"--version"}),
        ("rtsep separate --mo", {"--model"}),
        ("rtsep completion f", {"fish"}),
    ],
)
def test_commands_and_options_are_completed(typed: str, offered: set[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    env = {**words, "_RTSEP_COMPLETE": "bash_complete"}
    done = CliRunner().invoke(main, [], env=env, prog_name="rtsep")
    assert {line.split(",")[1] for line in done.stdout.splitlines()} == offered


def test_help_names_all_commands() -> None:
    listed = rtsep("-h").stdout
    for name in COMMANDS:
        assert re.search(rf"^  {name}  +\w", listed, re.MULTILINE)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_examples(command: str) -> None:
    result = rtsep(*command.split(), "--help")
    assert result.exit_code == 0
    examples = re.findall(r"^    rtsep ?(.*)$", result.stdout, re.MULTILINE)
    assert examples
    assert all(example.startswith(command) for example in examples)


def test_an_unknown_command_or_option_is_a_usage_error() -> None:
    for arguments in (["fly"], ["separate"], ["info", "--fast"], ["separate", "a.wav"]):
        result = rtsep(*arguments)
        assert result.exit_code == 2 and "Usage:" in result.stderr


def test_models_and_info_of_every_shipped_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "core_peak", cache(show.core_peak))  # one machine, twelve bundles
    listed = rtsep("models").stdout
    info = {name: rtsep("info", name).stdout for name in SHIPPED}
    for name, told in info.items():
        bundle = weights.find(name)
        assert name in listed
        for text in (name, str(bundle.spec.sample_rate), *bundle.spec.sources, *bundle.states):
            assert text in told
        speed = r"speed [1-9]\d* µs per call (on the tape|in ONNX Runtime), .* p99 \d+ µs\), "
        share = r"real-time factor 0\.\d+, \d+\.\d%"
        assert re.search(speed + share, " ".join(told.split()))
    of_default = rtsep("info").stdout
    assert of_default.partition("speed")[0] == info[weights.DEFAULT].partition("speed")[0]


def test_info_prints_what_a_bundle_says_and_obeys_none_of_it(tmp_path: Path) -> None:
    text = "[bold]data[/red] :smile:"
    path = models.write(models.handmade(training=text), tmp_path / "a[bold].onnx")
    result = rtsep("info", path)
    assert result.exit_code == 0
    assert text in result.stdout
    unknown = models.handmade()
    unknown.graph.node[-1].op_type = "Erf"
    assert "in ONNX Runtime" in rtsep("info", models.write(unknown, path)).stdout
    models.write(models.handmade(training="\x1b[31m"), path)
    assert "not a plain text" in refused("info", path)


@pytest.mark.parametrize(
    "command", [["info"], ["run", "-d", "demo", "-m"], ["separate", "a.wav", "-o", "out", "-m"]]
)
def test_a_model_that_is_none(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ", ".join(SHIPPED) in refused(*command, "no-such-model")
    for content in (b"", b"no model", models.handmade().SerializeToString()[:-50]):
        path = models.write(content, tmp_path / "bad.onnx")
        assert str(path) in refused(*command, path)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.onnx"]


def test_the_latency_has_one_meaning() -> None:
    """`models`, `info` and the README count window plus lookahead, 16 ms for the default model."""
    table = rtsep("models").output
    assert "16.0 ms" in next(line for line in table.splitlines() if line.startswith("speech*"))
    assert "16.0 ms = window + lookahead (0 frames)" in " ".join(rtsep("info").output.split())


def test_no_traceback_reaches_the_user(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    command = [sys.executable, "-m", "rtsep", "info", str(tmp_path / "bad.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and str(tmp_path / "bad.onnx") in done.stderr


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (8000, 3)])
def test_stems_are_like_the_input(tmp_path: Path, rate: int, channels: int) -> None:
    path = recording(tmp_path / "my song.v2.wav", 2 * rate + 77, channels, rate)
    out = tmp_path / "new" / "out"
    result = rtsep("separate", path, "-o", out)
    assert result.exit_code == 0 and not result.stderr
    sources = weights.find().spec.sources
    names = {f"my song.v2_{source}.wav" for source in sources}
    assert {p.name for p in out.iterdir()} == names
    assert all(str(out / name) in result.stdout for name in names)
    mixture, total = soundfile.read(path, always_2d=True)[0], 0.0
    for name in names:
        stem, stem_rate = soundfile.read(out / name, always_2d=True)
        assert (stem.shape, stem_rate) == (mixture.shape, rate)
        total = total + stem
    # The masks add up to one, so the stems do to the mixture: exactly at the model's own rate.
    if rate == 16000:
        np.testing.assert_allclose(total, mixture, atol=1e-4)
    middle = slice(rate // 10, -rate // 10)
    assert np.abs(total - mixture)[middle].max() < 0.01 * np.abs(mixture).max()
    for channel in range(channels):
        spectra = np.fft.rfft(np.stack([total[:, channel], mixture[:, channel]]), axis=1)
        assert np.argmax(np.fft.irfft(spectra[0] * spectra[1].conj(), len(mixture))) == 0


def test_names_are_not_markup(tmp_path: Path) -> None:
    path = recording(tmp_path / "take [2] [bold] :smile:.wav")
    assert "take [2] [bold] :smile:_speech.wav" in rtsep("separate", path, "-o", tmp_path).stdout


def bad_files(folder: Path) -> list[Path]:
    """A file of every bad kind."""
    whole = recording(folder / "whole.wav").read_bytes()
    nan = band(16000, 1, 16000)
    nan[9000] = np.nan
    soundfile.write(folder / "nan.wav", nan, 16000, subtype="FLOAT")
    (folder / "whole.wav").unlink()
    for name, content in (
        ("cut.wav", whole[: len(whole) // 2]),
        ("empty.wav", b""),
        ("text.wav", b"this is a text, not audio. " * 20),
    ):
        (folder / name).write_bytes(content)
    (folder / "folder.wav").mkdir()
    names = ("nan", "cut", "empty", "text", "folder", "missing")
    return [folder / f"{name}.wav" for name in names]


def test_bad_files_are_named_and_the_others_done(tmp_path: Path) -> None:
    bad, out = bad_files(tmp_path), tmp_path / "out"
    good = [recording(tmp_path / "in" / f"{i}.wav", 4000) for i in range(2)]
    result = rtsep("separate", good[0], *bad, good[1], "-o", out)
    assert result.exit_code == 2
    *sentences, last = result.stderr.splitlines()
    assert len(sentences) == len(bad) and last == f"rtsep: {len(bad)} of 8 files failed"
    for path, sentence in zip(bad, sentences, strict=True):
        assert sentence.startswith("rtsep: ") and str(path) in sentence
    sources = weights.find().spec.sources
    assert {p.name for p in out.iterdir()} == {f"{i}_{s}.wav" for i in range(2) for s in sources}


@pytest.mark.parametrize("index", range(6))
def test_a_bad_file_alone_leaves_nothing(tmp_path: Path, index: int) -> None:
    bad, out = bad_files(tmp_path)[index], tmp_path / "out"
    assert str(bad) in refused("separate", bad, "-o", out)
    assert not out.exists() or not list(out.iterdir())


def test_two_inputs_of_one_name(tmp_path: Path) -> None:
    first, second = (recording(tmp_path / folder / "a.wav", 4000) for folder in "xy")
    result = rtsep("separate", first, second, "-o", tmp_path / "out")
    assert (
        result.exit_code == 2 and f"{second} and {first} would have the same stems" in result.stderr
    )
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav", 4000)
    for folder in (path / "below", Path("/proc/none")):
        assert f"cannot write into {folder}" in refused("separate", path, "-o", folder)
    assert rtsep("separate", path, "-o", path).exit_code == 2


def test_a_joint_model_takes_its_channels_only(tmp_path: Path) -> None:
    spec = Spec(16000, 2, "waveform", "rectangular", 64, 64, 1, 1, ("a", "b"))
    model = models.write(models.handmade(spec), tmp_path / "two.onnx")
    files = [recording(tmp_path / f"{n}.wav", 4000, n) for n in (1, 2)]
    result = rtsep("separate", *files, "-o", tmp_path / "out", "-m", model)
    assert result.exit_code == 2 and "2 channels jointly, not 1" in result.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"2_a.wav", "2_b.wav"}


_MEMORY = """
import resource, sys
from rtsep.cli import main
short, long, out, model = sys.argv[1:]
peaks = []
for path in (short, long):
    main(["separate", path, "-o", out, "-m", model], standalone_mode=False)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in the unit of Linux")
def test_long_files_need_no_more_memory(tmp_path: Path) -> None:
    spec = Spec(16000, 1, "waveform", "rectangular", 1024, 1024, 1, 1, ("a", "b"))
    models.write(models.handmade(spec), tmp_path / "quick.onnx")
    minute = band(60 * 16000, 1, 16000)
    for name, minutes in (("short", 1), ("long", 5)):
        with soundfile.SoundFile(tmp_path / f"{name}.wav", "w", 16000, 1, "PCM_16") as file:
            for _ in range(minutes):
                file.write(minute)
    paths = [tmp_path / name for name in ("short.wav", "long.wav", "out", "quick.onnx")]
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    grown_kb = int(done.stdout.splitlines()[-1])
    assert grown_kb < 16 * 1024, "the stems alone would take 38 MB"
    assert soundfile.info(tmp_path / "out" / "long_b.wav").frames == 5 * 60 * 16000


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    text, pickled = tmp_path / "text.safetensors", tmp_path / "pickle.safetensors"
    text.write_bytes(b"no checkpoint " * 30)
    pickled.write_bytes(pickle.dumps({"weight": [1.0]}))
    for path in (text, pickled, tmp_path, tmp_path / "missing.safetensors"):
        assert str(path) in refused("export", path, "-o", out)
    assert not out.exists() and not list(tmp_path.glob("*.part"))


def test_checkpoints_are_exported_or_refused(tmp_path: Path) -> None:
    from rtsep.models.checkpoint import Description, save

    module = models.chandna_module()
    out, good, bad = (tmp_path / name for name in ("out.onnx", "good.st", "bad.st"))
    save(good, Description("mine", "chandna", models.CHANDNA, models.OPTIONS), module.state_dict())
    save(bad, Description("mine", "chandna", models.CHANDNA, {}), module.state_dict())
    assert f"{bad} does not fit model 'chandna'" in refused("export", bad, "-o", out)
    save(bad, Description("mine", "wavenet", models.CHANDNA, {}), module.state_dict())
    assert "'wavenet'" in refused("export", bad, "-o", out)
    assert not out.exists()
    assert f"{good / 'x.onnx'}" in refused("export", good, "-o", good / "x.onnx")
    assert rtsep("export", good, "-o", out).exit_code == 0
    assert "mine" in rtsep("info", out).stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.st", "good.st", "out.onnx"]
