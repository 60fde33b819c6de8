"""The measured round trip is the one there is, through noise, either polarity, or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtsep.cli import loopback as command
from rtsep.devices import loopback
from rtsep.devices.callback_stream import CallbackStream
from rtsep.errors import DeviceError
from tests.support.command import refused, rtsep
from tests.support.jack import JACK_BLOCK, JACK_RATE
from tests.support.patience import PATIENCE_S
from tests.support.random_cases import cases

RATE, BLOCK = 16000, 64


class Wire(CallbackStream):
    """A device whose input is its output, later, with noise; as fast as it is answered."""

    name = "a wire"

    def __init__(self, delay: int, gain: float = 1.0, noise: float = 0.0, blocks: int = 1 << 30):
        super().__init__(RATE, 2, 1, BLOCK, 2 * BLOCK, microphone=True)
        self.delay, self.gain, self.noise, self.blocks = delay, gain, noise, blocks
        self.stopping = False
        self.thread = threading.Thread(target=self.run, daemon=True)

    @property
    def active(self) -> bool:
        return self.thread.is_alive()

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.stopping = True
        self.thread.join()

    def latency_terms(self) -> dict[str, int]:
        return {"device input": 0, "headroom": self.headroom, "device output": self.delay}

    def run(self) -> None:
        rng = np.random.default_rng(0)
        line = np.zeros(self.delay + BLOCK, np.float32)
        out = np.zeros((BLOCK, 1), np.float32)
        while not self.stopping and self.blocks:
            if self.output.readable < BLOCK:
                time.sleep(1e-4)
                continue
            self.blocks -= 1
            block = self.noise * rng.standard_normal((BLOCK, 2)).astype(np.float32)
            block[:, 1] += self.gain * line[:BLOCK]
            self.tick(block, out, 0.0)
            line[:-BLOCK] = line[BLOCK:].copy()
            line[-BLOCK:] = out[:, 0]


@cases(6)
@given(
    delay=st.integers(0, 6000),
    gain=st.sampled_from([1.0, -1.0, 0.01]),
    noise=st.sampled_from([0.0, 0.001, 0.01]),
)
def test_the_round_trip_is_found_to_the_sample(delay: int, gain: float, noise: float) -> None:
    device = Wire(delay, gain, noise if abs(gain) == 1.0 else noise / 100)
    found = loopback.measure(device)
    assert found is not None and len(found.delays) == loopback.SWEEPS
    # What is written in a block is played in the next one at the earliest.
    assert set(found.delays) == {BLOCK + delay + device.headroom}
    assert (found.samples, found.spread) == (found.delays[0], 0)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_nothing_comes_back(noise: float) -> None:
    assert loopback.measure(Wire(100, 0.0, noise)) is None


def test_noise_has_no_delay() -> None:
    played = loopback.sweep(48000)
    assert np.max(np.abs(played)) <= loopback.LEVEL
    for seed in range(20):
        noise = np.random.default_rng(seed).standard_normal(48000).astype(np.float32)
        assert loopback.delay(noise, played) is None


def test_a_device_that_stops() -> None:
    with pytest.raises(DeviceError, match="a wire stopped by itself"):
        loopback.measure(Wire(0, blocks=100))


def test_the_command_says_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "open_device", lambda *_: Wire(900))
    path = tmp_path / "new" / "l.json"
    said = rtsep("loopback", "--json", path)
    assert said.exit_code == 0
    assert "measured 68.2 ms (5 of 5 sweeps heard, 0.00 ms apart)" in said.stdout
    assert "declared 64.2 ms = device input 0.0 + headroom 8.0 + device output 56.2" in said.stdout
    assert "difference +4.0 ms" in said.stdout and "disagree" not in said.stdout
    told = json.loads(path.read_text())
    assert (told["measured_ms"], told["difference_ms"], told["sweeps_heard"]) == (68.25, 4.0, 5)
    (tmp_path / "file").touch()
    bad = tmp_path / "file" / "l.json"
    assert f"cannot write {bad}" in refused("loopback", "--json", bad)


def test_nothing_came_back_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "open_device", lambda *_: Wire(900, 0.0))
    said = rtsep("loopback")
    assert said.exit_code == 1
    assert said.stderr.startswith("rtsep: no sweep came back: connect an output to an input")
    assert said.stderr.count("\n") == 1


def test_what_is_no_sound_card(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    for device in ("demo", tmp_path / "a.wav"):
        assert "is no sound card" in refused("loopback", "--device", device)


def _round_trip_ms(client: Any) -> float:
    """Measure the round trip of JACK itself with jack_iodelay, which knows nothing of rtsep."""
    command = ["stdbuf", "-oL", "jack_iodelay"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as witness:
        try:
            assert witness.stdout is not None
            deadline = time.monotonic() + PATIENCE_S
            while not client.get_ports("jack_delay:out"):
                assert time.monotonic() < deadline and witness.poll() is None
                time.sleep(0.05)
            client.connect("jack_delay:out", "jack_delay:in")
            for line in witness.stdout:
                if found := re.search(r"([\d.]+) ms total roundtrip latency", line):
                    return float(found[1])
        finally:
            witness.kill()
    raise AssertionError("jack_iodelay ended")


@pytest.mark.device
def test_a_cable_between_the_ports_of_jack(jack: str, tmp_path: Path) -> None:
    import jack as library

    client: Any = library.Client("patch bay", no_start_server=True)
    client.activate()
    witness = _round_trip_ms(client) if shutil.which("jack_iodelay") else None
    path = tmp_path / "l.json"
    run = subprocess.Popen(
        [sys.executable, "-m", "rtsep", "loopback", "--device", jack, "--json", str(path)],
        env=os.environ,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (outputs := client.get_ports("PortAudio", is_output=True)):
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.05)
        client.connect(outputs[0], client.get_ports("PortAudio", is_input=True)[0])
        assert run.wait(PATIENCE_S) == 0
    finally:
        run.kill()
        client.deactivate()
        client.close()
    told = json.loads(path.read_text())
    assert told["sweeps_heard"] >= 4 and told["sample_rate_hz"] == JACK_RATE
    if not told["missed_callbacks"] and not told["deadline_misses"]:
        block_ms = 1000 * JACK_BLOCK / JACK_RATE
        assert abs(told["difference_ms"]) <= block_ms
        if witness is not None:
            headroom_ms = told["declared_terms_ms"]["headroom"]
            rest_ms = told["measured_ms"] - headroom_ms - witness
            assert abs(rest_ms) < 0.1  # PortAudio holds nothing back
