"""PortAudio: how devices are found, and what a stream does on a virtual sound card."""

from __future__ import annotations

import importlib.abc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from rtsep.devices.device import Device
from rtsep.devices.portaudio.client import Process
from rtsep.devices.portaudio.device import Hosted
from rtsep.devices.portaudio.library import find, listing
from rtsep.errors import DeviceError
from tests.support.jack import start_server, stop_server
from tests.support.patience import PATIENCE_S, until

RATE, BLOCK = 48_000, 128


@contextmanager
def hosted(
    card: str, rate: int, in_channels: int, out_channels: int, headroom: int = 0, **options: Any
) -> Iterator[Hosted]:
    """Open both sides of a card, or its output if there is a source, and let it run."""
    process = Process()
    try:
        found = process.find(card, "output")
        heard = None if "source" in options else found
        channels = in_channels, out_channels
        with Hosted(process, heard, found, rate, *channels, BLOCK, headroom, **options) as device:
            yield device
    finally:
        process.close()


@contextmanager
def copying(device: Device) -> Iterator[None]:
    """Run a worker that copies the input to the output."""
    stopping = threading.Event()

    def work() -> None:
        block = np.zeros((device.block, device.input.width), np.float32)
        while not stopping.wait(0.0005):
            while device.input.readable >= len(block):
                device.input.read(block)
                device.output.append(block)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        yield
    finally:
        stopping.set()
        worker.join()


def test_importing_needs_no_portaudio() -> None:
    modules = "sys, rtsep.devices.open, rtsep.devices.portaudio.library"
    code = f"import {modules}; assert 'sounddevice' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_portaudio_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLibrary(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoLibrary(), *sys.meta_path])
    with pytest.raises(DeviceError, match="apt install libportaudio2"):
        listing()


@pytest.mark.device
def test_devices_are_found_as_users_name_them(jack: str) -> None:
    index = find(jack, "input")["index"]
    for query in ("SYSTEM", "sys jack", index, f" {index} "):
        assert find(query, "output")["index"] == index
    assert "JACK Audio Connection Kit (2 in, 2 out)" in listing()
    for query in ("no such thing", 99, "99", -7):
        with pytest.raises(DeviceError, match=str(query)) as caught:
            find(query, "input")
        assert "\n" not in str(caught.value)


@pytest.mark.device
def test_what_a_device_cannot_do_is_refused(jack: str) -> None:
    for rate, in_channels, out_channels, refusal in (
        (RATE, 3, 2, "2 input channels, not 3"),
        (RATE, 2, 5, "2 output channels, not 5"),
        (44_100, 2, 2, "44100 Hz"),
    ):
        with (
            pytest.raises(DeviceError, match=refusal),
            hosted(jack, rate, in_channels, out_channels),
        ):
            pass


class Tape:
    """Two JACK clients around a stream: one feeds the time, one writes down what comes back."""

    def __init__(self, seconds: float) -> None:
        import jack

        self.source, self.sink = (jack.Client(name, no_start_server=True) for name in "ab")
        out, heard = self.source.outports.register("out"), self.sink.inports.register("in")
        blocks = int(seconds * RATE / BLOCK)
        self.delays, self.count = np.zeros((blocks, BLOCK)), 0
        self.heard = np.zeros((blocks, BLOCK), np.float32)
        start, samples = self.source.last_frame_time, np.arange(1, BLOCK + 1)

        @self.source.set_process_callback
        def feed(frames: int) -> None:
            out.get_array()[:] = self.source.last_frame_time - start + samples

        @self.sink.set_process_callback
        def record(frames: int) -> None:
            if self.count < blocks:
                self.heard[self.count] = heard.get_array()
                now = self.sink.last_frame_time - start + samples
                self.delays[self.count] = now - self.heard[self.count]
                self.count += 1

        for client in (self.source, self.sink):
            client.activate()
        for client, own, side in ((self.source, out, "is_input"), (self.sink, heard, "is_output")):
            (port,) = client.get_ports("PortAudio", **{side: True})
            for other in client.get_all_connections(port):
                client.disconnect(*((other, port) if side == "is_input" else (port, other)))
            client.connect(*((own, port) if side == "is_input" else (port, own)))
        deadline = time.monotonic() + PATIENCE_S
        while self.count < blocks and time.monotonic() < deadline:
            time.sleep(0.01)
        for client in (self.source, self.sink):
            client.deactivate()
            client.close()
        assert self.count == blocks

    def delay(self, part: slice) -> float:
        """Most frequent delay, in samples, of what was heard in these blocks."""
        values, counts = np.unique(self.delays[part][self.heard[part] != 0.0], return_counts=True)
        return float(values[counts.argmax()])

    def check(self, stats: Any) -> float:
        """Demand one delay from start to end; return it."""
        first = int((self.heard != 0.0).any(axis=1).argmax()) + 1
        early, late = self.delay(slice(first, first + 100)), self.delay(slice(-100, None))
        troubles = stats.missed + stats.input_overflows + stats.output_underflows
        delays, heard = self.delays[first:], self.heard[first:] != 0.0
        if not troubles:  # nothing but counted silence
            assert (delays[heard] == early).all()
            assert (~heard).sum() <= stats.starved_samples
        assert early == late
        return early


@pytest.mark.device
def test_what_goes_into_the_device_comes_out_at_a_constant_delay(jack: str) -> None:
    with hosted(jack, RATE, 1, 1, passthrough=True) as device:
        floor = Tape(1.5).check(device.stats())
        assert device.active
        assert device.peaks()[1] > 0.0
    assert not device.active
    headroom = 16 * BLOCK
    with hosted(jack, RATE, 1, 1, headroom) as device, copying(device):
        delay = Tape(3).check(device.stats())
    stats = device.stats()
    assert delay == floor + headroom
    assert (stats.starvations == 0) == (stats.starved_samples == 0)
    assert device.latency_terms()["headroom"] == headroom


@pytest.mark.device
def test_blocks_of_jacks_own_length_are_not_held_back(jack: str) -> None:
    """What is declared is what another client hears, up to the cables between clients."""
    declared, heard = [], []
    for block in (BLOCK, BLOCK // 2):
        process = Process()
        card = process.find(jack, "output")
        assert card["period"] == BLOCK
        with Hosted(process, card, card, RATE, 1, 1, block, 0, passthrough=True) as device:
            heard.append(Tape(1.0).check(device.stats()))
            declared.append(device.latency_terms()["device output"])
    assert declared == [BLOCK, BLOCK + BLOCK // 2]
    assert heard[1] - heard[0] == declared[1] - declared[0]


@pytest.mark.device
def test_a_source_is_played_to_a_device(jack: str) -> None:
    source = np.full((RATE // 4, 1), 0.5, np.float32)
    with hosted(jack, RATE, 1, 2, 8 * BLOCK, source=source, passthrough=True) as device:
        until(lambda: device.finished)
        assert device.peaks() == (0.5, 0.5)
    assert device.stats().callbacks * BLOCK >= len(source)
    assert device.latency_terms()["device input"] == 0


LOSE = """
import os, signal, sys, time
from rtsep.devices.portaudio.client import Process
from rtsep.devices.portaudio.device import Hosted

process = Process()
jack = process.find("system, JACK Audio Connection Kit", "output")
device = Hosted(process, jack, jack, 48000, 2, 2, 128, 512)
device.start()
assert device.active
os.kill(int(sys.argv[1]), signal.SIGTERM)
deadline = time.monotonic() + 20
while device.active and time.monotonic() < deadline:
    time.sleep(0.01)
assert not device.active
device.stop()
device.stop()
"""


@pytest.mark.device
def test_a_lost_device_is_seen_and_can_be_left(jack: str) -> None:
    name = f"rtsep-test-lost-{os.getpid()}"
    server = start_server(name, ["-r"])
    assert server is not None
    try:
        subprocess.run(
            [sys.executable, "-c", LOSE, str(server.pid)],
            env={**os.environ, "JACK_DEFAULT_SERVER": name},
            check=True,
            timeout=PATIENCE_S,
        )
    finally:
        stop_server(server)
