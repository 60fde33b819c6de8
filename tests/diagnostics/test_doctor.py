"""``rtsep doctor``: what is well is called so, and what is not comes with what mends it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from rtsep import weights
from rtsep.cli import main
from rtsep.cli.doctor import line
from rtsep.diagnostics import doctor
from rtsep.diagnostics.doctor import Finding
from rtsep.diagnostics.selftest import Outcome, delay, selftest
from rtsep.dsp import kernel
from rtsep.errors import DeviceError, LostError
from rtsep.latency import StreamLatency
from rtsep.realtime import scheduling
from tests.support.command import rtsep


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return selftest()


def test_the_self_test_measures_what_is_printed(outcome: Outcome) -> None:
    # Late answers give way to the mixture of their time, so this holds on any machine.
    assert outcome.measured == outcome.printed.samples
    assert outcome.printed.terms["headroom"] > 0
    assert outcome.real_time_factor > 0
    if not outcome.misses:
        assert outcome.improvement_db > 1
        finding = doctor.judged(outcome)
        assert finding.ok and not finding.fix
        assert f"{outcome.printed.ms:.1f} printed; 0 misses" in finding.text


def test_a_bad_outcome_is_not_called_well() -> None:
    printed = StreamLatency(16000, {"overlap": 128, "headroom": 160})
    for measured, misses, improvement_db, fix in (
        (288, 0, 5.0, ""),
        (289, 0, 5.0, "anew"),
        (288, 3, 5.0, "--buffer"),
        (288, 0, 0.0, "anew"),
    ):
        finding = doctor.judged(Outcome(printed, measured, misses, improvement_db, 0.04))
        assert (fix in finding.fix) if fix else not finding.fix
        assert finding.ok == (not fix)


def test_the_report_names_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(doctor.platform, "node", lambda: "difference-engine")
    monkeypatch.setattr(doctor.Path, "home", lambda: Path("/home/ada"))
    findings = [
        Finding("numba cache", "85 kernels in /home/ada/.cache/rtsep"),
        Finding("microphone", "Ada's AirPods, 48000 Hz; can do 44100, 48000 Hz"),
        Finding("microphone", "ada's device is held by difference-engine", "close it"),
        Finding("models", "OSError: /srv/ada/models is not there; adagio is"),
    ]
    told = doctor.report(findings)
    assert [finding["text"] for finding in told["findings"]] == [
        "85 kernels in ~/.cache/rtsep",
        "48000 Hz; can do 44100, 48000 Hz",
        "USER's device is held by HOST",
        "OSError: PATH is not there; adagio is",
    ]
    assert [finding["ok"] for finding in told["findings"]] == [True, True, False, True]


def test_delays_are_found_in_samples() -> None:
    sound = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    for late in (0, 1, 287, 2000):
        heard = np.concatenate([np.zeros(late, np.float32), sound])
        assert delay(heard, sound) == late


def test_all_kernels_are_loaded_and_counted() -> None:
    (finding,) = doctor.kernels()
    assert finding.ok and not finding.fix and int(finding.text.split()[0]) > 40
    modules = {found.__module__ for found in kernel.COMPILED if hasattr(found, "stats")}
    assert {"rtsep.realtime.compiled_loop", "rtsep.devices.callback"} < modules


def test_torch_is_not_needed() -> None:
    code = "import sys; sys.modules['torch'] = None\n"
    code += "from rtsep.diagnostics import doctor; print(*doctor.kernels())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "kernels in" in done.stdout


def test_what_was_compiled_just_now_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(misses: int) -> Any:
        return SimpleNamespace(stats=SimpleNamespace(cache_misses={"f": misses}))

    callback = SimpleNamespace(cache_hits=0)
    monkeypatch.setattr(kernel, "COMPILED", [compiled(0), compiled(2), callback])
    (finding,) = doctor.kernels()
    assert finding.ok and "3 kernels in " in finding.text
    assert finding.text.endswith(", 2 of them compiled just now")


def test_a_cache_that_cannot_be_kept_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "cache_folder", lambda: None)
    (finding,) = doctor.kernels()
    assert finding.ok and "NUMBA_CACHE_DIR" in finding.fix


def test_two_runtimes_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = doctor.versions()
    assert finding.ok and "numpy" in finding.text and "Python 3" in finding.text
    monkeypatch.setattr(doctor, "version", lambda name: "1.2.3")
    (finding,) = doctor.versions()
    assert not finding.ok and "uninstall" in finding.fix


def test_runtime_and_models_are_there() -> None:
    (runtime,), (shipped,) = doctor.runtime(), doctor.models()
    assert runtime.ok and "CPUExecutionProvider" in runtime.text
    assert shipped.ok and all(name in shipped.text for name in weights.names())


DEVICE = {"index": 0, "name": "card", "default_samplerate": 48000.0}


class Card:
    """In the place of the process of PortAudio: answers, or what goes wrong."""

    def __init__(self, version: Any = "V19", device: Any = DEVICE, rates: Any = (48000,)) -> None:
        self.answers = {"version": version, "find": device, "rates": rates}
        self.closed = False

    def ask(self, request: str, **_: Any) -> Any:
        answer = self.answers[request]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def find(self, *_: Any) -> Any:
        return self.ask("find")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("card", "oks", "fix"),
    [
        (Card(), [True, True, True], ""),
        (Card(rates=(16000,)), [True, False, False], "another program may hold it"),
        (Card(device=DeviceError("there is none")), [True, False, False], "--device demo"),
        (Card(DeviceError("it is missing: install it")), [False], "install it"),
        (Card(LostError("PortAudio does not answer")), [False], "sound server"),
    ],
)
def test_sound_cards(
    card: Card, oks: list[bool], fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "Process", lambda: card)
    findings = list(doctor.sound())
    assert [finding.ok for finding in findings] == oks and card.closed
    assert fix in findings[-1].fix


@pytest.mark.device
def test_a_real_card(jack: str) -> None:
    findings = {finding.name: finding for finding in doctor.sound()}
    assert findings["PortAudio"].text.startswith("V")
    assert all(finding.ok for finding in findings.values()), findings
    assert "48000" in findings["microphone"].text


@pytest.mark.parametrize("granted", [True, False])
def test_priority_is_a_note(granted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "go_first", lambda: granted)
    monkeypatch.setattr(scheduling, "lock_memory", lambda: granted)
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    priority, memory = doctor.priority()
    assert priority.ok and memory.ok
    assert ("rtprio" in priority.fix) == ("memlock" in memory.fix) == (not granted)
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    (priority,) = doctor.priority()
    assert priority.ok and not priority.fix


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_part() -> Any:
        raise ZeroDivisionError("by zero\nand more")

    monkeypatch.setattr(doctor, "CHECKS", (broken_part, doctor.models))
    first, second = doctor.examine()
    assert (first.name, first.text) == ("broken part", "ZeroDivisionError: by zero")
    assert not first.ok and second.ok
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1 and "1 to fix" in result.stderr
    monkeypatch.setattr(doctor, "CHECKS", (doctor.models,))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0 and result.stdout.startswith("ok    models: ")


def test_lines_say_what_to_do() -> None:
    assert "\n" not in line(Finding("a", "b"))
    for needed, word in ((True, "fix "), (False, "note")):
        first, second = line(Finding("a", "b", "do c", needed)).splitlines()
        assert word in first and first.endswith("a: b") and second == "      do c"


def test_the_whole_of_it() -> None:
    done = rtsep("doctor")
    words = [said[:4].strip() for said in done.stdout.splitlines() if not said.startswith(" ")]
    assert {*words} <= {"ok", "note", "fix"} and len(words) >= 7
    assert done.exit_code == (1 if "fix" in words else 0)
    assert "self-test: " in done.stdout
