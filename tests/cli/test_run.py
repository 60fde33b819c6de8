"""``rtsep run`` without a sound card: heard, recorded, summarised, or refused before it starts."""

from __future__ import annotations

import json
import math
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from rtsep import weights
from rtsep.cli import run as command
from rtsep.devices import open as opening
from rtsep.devices.open import DeviceOptions
from rtsep.errors import DeviceError, OptionError
from rtsep.realtime.builder import Stream, StreamOptions
from rtsep.runtime import model_step
from rtsep.runtime.ort_step import OrtStep
from tests.support import models
from tests.support.audio import recording
from tests.support.command import NO_CARD, refused, rtsep, start, stems
from tests.support.patience import PATIENCE_S


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(query: object, kind: str, process: object) -> None:
        raise DeviceError("there is no sound card")

    monkeypatch.setattr(opening, "find", find)


NUMBERS = [
    "sample_rate_hz",
    "block",
    "seconds",
    "separated_seconds",
    "latency_ms",
    "latency_at_start_ms",
    "hop_ms",
    "real_time_factor",
    "xruns",
    "callbacks",
    "missed_callbacks",
    "deadline_misses",
    "starved_samples",
    "longest_starvation",
    "dropped_samples",
    "device_losses",
    "device_away_s",
    "input_overruns",
    "nonfinite_in",
    "nonfinite_out",
    "not_recorded_samples",
]


def check_summary(path: Path) -> dict[str, Any]:
    """Check what the summary always says, and return it."""
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert all(isinstance(summary[name], int | float) for name in NUMBERS)
    assert set(summary["hop_time_us"]) == {"p50", "p99", "p99.9", "max"}
    terms = sum(summary["latency_terms_ms"].values())
    if not summary["deadline_misses"]:  # else headroom grows, or it ends while it catches up
        assert summary["latency_at_start_ms"] == pytest.approx(terms, abs=0.01)
        assert summary["latency_ms"] == summary["latency_at_start_ms"]
    assert summary["separated_seconds"] <= summary["seconds"] + 0.1
    assert (summary["nonfinite_in"], summary["nonfinite_out"]) == (0, 0)
    return summary


def test_the_demo_is_recorded_as_separate_would(tmp_path: Path, no_card: None) -> None:
    folder, out, summary = tmp_path / "a [1]" / "rec", tmp_path / "out", tmp_path / "x" / "s.json"
    done = rtsep("run", "--device", "demo", "-s", 1.5, "--record", folder, "--json", summary)
    assert (done.exit_code, done.stderr) == (0, "")
    said = done.stdout
    names = {"mixture", *weights.find().spec.sources}
    files = {f"{name}.wav" for name in names} | {"spectrograms.png"}
    assert {p.name for p in folder.iterdir()} == files
    assert all(f"wrote {folder / name}\n" in said for name in files)
    told = check_summary(summary)
    assert told["completed"] and told["model"] == weights.DEFAULT
    assert [p.name for p in summary.parent.iterdir()] == ["s.json"]

    recorded = stems(folder)
    length = len(recorded["mixture"])
    assert length == round(told["separated_seconds"] * told["sample_rate_hz"]) > 0
    if not told["input_overruns"]:  # it began at the beginning
        demo = soundfile.read(opening.DEMO, always_2d=True)[0]
        np.testing.assert_allclose(recorded["mixture"], demo[:length], atol=1e-4)
    assert rtsep("separate", folder / "mixture.wav", "-o", out).exit_code == 0
    for name in names - {"mixture"}:
        separated, _ = soundfile.read(out / f"mixture_{name}.wav", always_2d=True)
        np.testing.assert_allclose(recorded[name], separated, atol=1e-6)


def test_a_file_is_a_device_of_its_rate_and_channels(tmp_path: Path, no_card: None) -> None:
    path = recording(tmp_path / "talk.wav", 24000, 2, 48000)
    result = rtsep("run", "-d", path, "-r", tmp_path / "r", "--json", tmp_path / "s.json")
    assert result.exit_code == 0
    told = check_summary(tmp_path / "s.json")
    assert told["completed"] and told["latency_terms_ms"]["resampling"] > 0
    assert told["sample_rate_hz"] == 48000
    if not told["input_overruns"]:
        mixture = stems(tmp_path / "r")["mixture"]
        np.testing.assert_allclose(mixture[:24000], soundfile.read(path)[0], atol=1e-7)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_a_clean_end(number: signal.Signals, tmp_path: Path) -> None:
    process = start("-d", "demo", "--record", tmp_path, "--json", tmp_path / "s.json")
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    said = ""
    while "RTF" not in said:  # the first line of the meter, after a second
        line = process.stdout.readline()
        assert line, "it ended by itself"
        said += line
    process.send_signal(number)
    rest, complaints = process.communicate()
    watchdog.cancel()
    assert (process.returncode, complaints) == (0, "")
    assert "separated" in rest and "latency" in rest
    told = check_summary(tmp_path / "s.json")
    lengths = {name: len(stem) for name, stem in stems(tmp_path).items()}
    assert set(lengths.values()) == {round(told["separated_seconds"] * told["sample_rate_hz"])}
    assert len(lengths) == 3 and not list(tmp_path.glob(".*"))


def test_an_unknown_device_is_refused_with_the_list() -> None:
    """Also where the name looks like that of a file; without PortAudio there is no list."""
    for name in ("no such device", "missing.wav", "12345"):
        result = rtsep("run", "--device", name, "--seconds", 1)
        assert result.exit_code == 2
        sentence, *rest = result.stderr.splitlines()
        assert sentence.startswith("rtsep: ")
        if "PortAudio" not in sentence:
            assert name in sentence and rest[1] == "The devices are:"
            assert "\n".join(rest[2:]).strip() == rtsep("devices").stdout.strip()


@pytest.mark.parametrize(
    ("options", "reasons"),
    [
        (["--listen", "drums"], ["'drums'", "speech, noise"]),
        (["--gain", "drums=3"], ["'drums'", "speech, noise"]),
        (["--gain", "speech"], ["SOURCE=dB, not 'speech'"]),
        (["--gain", "speech=loud"], ["SOURCE=dB, not 'speech=loud'"]),
        (["--gain", "speech=nan"], ["speech=nan"]),
        (["--gain", "speech=inf"], ["speech=inf"]),
        (["--gain", "speech=24.1"], ["at most 24 dB"]),
    ],
)
def test_sources_and_gains_that_cannot_be(
    tmp_path: Path, options: list[str], reasons: list[str], no_card: None
) -> None:
    sentence = refused("run", "-d", "demo", *options, "--record", tmp_path / "r")
    assert all(reason in sentence for reason in reasons)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was to be opened: device, how, and the options of its stream."""
    found: list[tuple[Any, ...]] = []

    def open_stream(device: str, choose: object, *options: object, notices: object) -> None:
        found.append((device, *options))
        raise OptionError("that is enough")

    monkeypatch.setattr(command, "open_stream", open_stream)
    return found


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], None),
        (["--listen", "noise"], {"noise": 0.0}),
        (["--gain", "speech=-20"], {"speech": -20.0}),
        (["--listen", "speech", "--gain", "noise=-40"], {"speech": 0.0, "noise": -40.0}),
        (["-g", "speech=0", "-g", "noise=-inf"], {"speech": 0.0, "noise": -math.inf}),
    ],
)
def test_gains(
    options: list[str], wanted: dict[str, float] | None, opened: list[tuple[Any, ...]]
) -> None:
    assert "that is enough" in refused("run", "-d", "demo", *options)
    assert opened[0][2].gains == wanted


def test_run_and_the_panel_take_the_same_options(opened: list[tuple[Any, ...]]) -> None:
    options = "-o 4 --channels 2 --block 64 --buffer 5 --on-late mute --limit -3 --no-reconnect"
    options += " --give-up 60 --realtime off --record r --listen noise --gain speech=-6"
    for begin in (["run", "-d", "USB"], ["ui", "--port", "0", "--device", "USB"]):
        assert "that is enough" in refused(*begin, *options.split())
    assert opened[0] == opened[1]
    device, where, chosen = opened[0]
    assert (device, where) == ("USB", DeviceOptions("4", 2, 64, 5.0))
    assert chosen == StreamOptions(
        on_late="mute",
        limit_db=-3.0,
        realtime=False,
        gains={"noise": 0.0, "speech": -6.0},
        record=Path("r"),
        reconnect=False,
        give_up_s=60.0,
    )


def test_files_that_cannot_be_played(tmp_path: Path, no_card: None) -> None:
    path, folder = tmp_path / "a.wav", tmp_path / "r"
    sound = np.zeros(1000, np.float32)
    sound[500] = np.nan
    soundfile.write(path, sound, 16000, subtype="FLOAT")
    assert f"{path}: sample 500" in refused("run", "-d", path, "-r", folder)
    for content in (b"", b"no audio" * 99):
        path.write_bytes(content)
        assert str(path) in refused("run", "-d", path, "-r", folder)
    assert not folder.exists()


def test_what_cannot_be_written_is_said_before_it_starts(
    tmp_path: Path, no_card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "below"
    monkeypatch.setattr(Stream, "start", lambda _: pytest.fail("started"))
    assert f"cannot write into {below}" in refused("run", "-d", "demo", "--record", below)
    assert str(below / "s.json") in refused("run", "-d", "demo", "--json", below / "s.json")


def test_a_source_that_cannot_be_named_in_a_folder_is_no_bundle(tmp_path: Path) -> None:
    model = models.handmade()
    sources = next(p for p in model.metadata_props if p.key == "rtsep.sources")
    sources.value = "speech,../noise"
    path = models.write(model, tmp_path / "a.onnx")
    assert "'../noise'" in refused("run", "-d", "demo", "-m", path, "-r", tmp_path / "r")
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_a_fault_while_running_is_no_success(
    tmp_path: Path, no_card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: OrtStep) -> None:
        failing.calls += 1
        call(self)
        if failing.calls > 100:
            raise ZeroDivisionError("a fault")

    failing: Any = fail
    failing.calls, call = 0, OrtStep.__call__
    monkeypatch.setattr(OrtStep, "__call__", fail)
    monkeypatch.setattr(model_step, "TAPE_FRAMES", 0)  # only Python can fail
    result = CliRunner().invoke(
        command.run, ["-d", "demo", "-r", str(tmp_path / "r"), "--json", str(tmp_path / "s.json")]
    )
    assert isinstance(result.exception, ZeroDivisionError) and result.exit_code == 1
    assert not json.loads((tmp_path / "s.json").read_text())["completed"]
    recorded = stems(tmp_path / "r")
    assert len({len(stem) for stem in recorded.values()}) == 1 and len(recorded) == 3


@pytest.mark.parametrize("command", ["run", "separate"])
def test_a_full_disk_costs_what_it_cannot_hold(command: str, tmp_path: Path) -> None:
    """Files may grow to 100 kB only; what a full disk answers is an error of the same kind."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    arguments = ["run", "-d", "demo", "-s", "4", "--record", tmp_path]
    if command == "separate":
        arguments = ["separate", opening.DEMO, "-o", tmp_path]
    process = subprocess.run(
        [sys.executable, "-c", NO_CARD, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert process.returncode == 2
    (sentence,) = process.stderr.splitlines()
    assert sentence.startswith(f"rtsep: cannot write {tmp_path}")
    if command == "separate":
        assert not list(tmp_path.iterdir())
        return
    assert "s separated, RTF" in process.stdout  # the audio went on
    assert "NOT RECORDING" in process.stdout
    assert "samples are not recorded" in process.stdout
    kept = stems(tmp_path)
    assert len({len(stem) for stem in kept.values()}) == 1 and len(kept) == 3
    assert f"the first {len(kept['mixture']) / 16000:.1f} s are kept" in sentence
    demo = soundfile.read(opening.DEMO, always_2d=True)[0]
    length = len(kept["mixture"])
    np.testing.assert_allclose(kept["mixture"], demo[:length], atol=1e-4)


def test_a_second_take_leaves_the_first_alone(tmp_path: Path, no_card: None) -> None:
    for _ in range(2):
        assert rtsep("run", "-d", "demo", "-s", 0.5, "--record", tmp_path).exit_code == 0
    names = {"mixture", *weights.find().spec.sources}
    wanted = {f"{name}{tail}.wav" for name in names for tail in ("", "-2")}
    assert {p.name for p in tmp_path.iterdir()} == wanted | {
        "spectrograms.png",
        "spectrograms-2.png",
    }
