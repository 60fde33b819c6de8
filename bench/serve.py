"""Find how many streams one core of `rtsep serve` carries, and what serving adds to a hop.

``python -m bench.serve [--model speech] [--seconds 20]``. The server runs on one core, the clients
on the others. Each client sends a packet of 20 ms at real-time pace and notes when its reply is
there; the streams are doubled and halved until p99.9 of that time is 60 ms. All of this is on one
machine, so there is no network in it. The same core is measured with `rtsep bench --streams`, and
the last lines say on paper what 10,000 streams need.

``python -m bench.serve --replicas 8`` compares two replicas of a Ray cluster, each with 8 streams,
with one. The times of the replies need a core for each replica and one for the clients; where there
are fewer, the processor time per stream says whether two replicas carry twice as much.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from rtsep import weights
from rtsep.benchmark import streams as engine
from rtsep.runtime.engine import DEFAULT
from rtsep.serve.batch import Batch
from rtsep.serve.protocol import Greeting
from rtsep.serve.stream import Stream
from rtsep.ui.protocol import SUBPROTOCOL, Hello, encode

LIMIT_MS = 60.0
MOST = 256
HELLO = Hello(16000, 1, 320, "s16")
PACKET_S = 0.02
FLEET = 10_000
CORES = 16
"""Cores of a machine of the fleet, on paper."""
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Trial:
    """Result with a number of streams.

    Attributes
    ----------
    streams
        Number of streams.
    median_ms, p999_ms, in_time
        Time from a packet to its reply, and share of replies within `LIMIT_MS`.
    hop_ms
        Median time of a call of the model for all streams that waited.
    cpu
        Share of one core that the processes with the streams used.
    memory_mb
        Memory of these.
    """

    streams: int
    median_ms: float
    p999_ms: float
    in_time: float
    hop_ms: float
    cpu: float
    memory_mb: float

    def __str__(self) -> str:
        return (
            f"{self.streams:4} streams: median {self.median_ms:.1f} ms, "
            f"p99.9 {self.p999_ms:.1f} ms, {100 * self.in_time:.2f} % in time, "
            f"hop {self.hop_ms:.2f} ms, "
            f"{100 * self.cpu:.0f} % of a core, {self.memory_mb:.0f} MB"
        )


async def begun(url: str) -> ClientConnection:
    """Begin a stream; try again while others begin and the server sees no place."""
    hello = {"sample_rate": HELLO.sample_rate, "channels": 1, "frame": HELLO.frame}
    while True:
        try:
            socket = await connect(url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None)
            await socket.send(json.dumps({"type": "hello", **hello, "format": HELLO.sample_format}))
            await socket.recv()
            return socket
        except (InvalidStatus, ConnectionClosed):
            await asyncio.sleep(0.1)


async def client(socket: ClientConnection, start: float, packets: int) -> list[float]:
    """Send packets at their times; return how long their replies took, in seconds."""
    sound = np.random.default_rng(0).normal(0, 0.1, (HELLO.frame, 1)).astype(np.float32)
    sent: list[float] = []
    own: list[float] = []

    async def send() -> None:
        for number in range(packets):
            await asyncio.sleep(start + number * PACKET_S - time.perf_counter())
            sent.append(time.perf_counter())
            await socket.send(encode(number, sound, HELLO))

    sending = asyncio.ensure_future(send())
    with suppress(ConnectionClosed):  # the server is too slow by seconds
        async with socket:
            while len(own) < packets:
                if isinstance(await socket.recv(), bytes):
                    own.append(time.perf_counter() - sent[len(own)])
            await socket.send('{"type": "end"}')
    sending.cancel()
    return own + [math.inf] * (packets - len(own))


async def crowd(url: str, streams: int, seconds: float) -> list[float]:
    """Run streams whose packets are spread over time; the waits of all replies, in seconds."""
    sockets = await asyncio.gather(*(begun(url) for _ in range(streams)))
    spread = np.random.default_rng(1).uniform(0, PACKET_S, streams)
    starts, packets = time.perf_counter() + 0.5 + spread, round(seconds / PACKET_S)
    waits = await asyncio.gather(
        *(client(*one, packets) for one in zip(sockets, starts, strict=True))
    )
    return [wait for own in waits for wait in own]


@contextmanager
def server(model: str, *options: str, core: int | None = None) -> Iterator[tuple[int, str]]:
    """Run `rtsep serve`, on one core if that is given: its process and address."""
    command = [sys.executable, "-m", "rtsep", "serve", "--port", "0", "--model", model, *options]
    pin = None if core is None else (lambda: os.sched_setaffinity(0, {core}))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin)
    try:
        assert process.stdout is not None
        found = re.search(r"http://(\S+)/", process.stdout.readline())
        assert found is not None
        yield process.pid, found[1]
    finally:
        process.terminate()
        process.wait()


def trial(processes: list[int], address: str, streams: int, seconds: float) -> Trial:
    """Measure a server; ``processes`` are those with the streams."""
    before, began = sum(map(used, processes)), time.perf_counter()
    waits = 1e3 * np.array(asyncio.run(crowd(f"ws://{address}/session", streams, seconds)))
    cpu = (sum(map(used, processes)) - before) / (time.perf_counter() - began)
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        hops = re.findall(r'rtsep_hop_seconds\{.*quantile="0.5".*\} (\S+)', answer.read().decode())
    median, p999 = np.percentile(waits, [50, 99.9], method="higher")
    in_time, hop = float(np.mean(waits < LIMIT_MS)), max(map(float, hops))
    memory = sum(map(memory_mb, processes))
    return Trial(streams, float(median), float(p999), in_time, 1e3 * hop, cpu, memory)


def used(process: int) -> float:
    """Return the processor time of a process, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mb(process: int) -> float:
    """Return the memory of a process that is not that of files, in MB."""
    fields = Path(f"/proc/{process}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * _PAGE / 1e6


def largest(model: str, seconds: float) -> list[Trial]:
    """Find the largest number of streams within the limit, by doubling and halving.

    Returns
    -------
    list of Trial
        Those within the limit, fewest streams first.
    """
    first, *others = sorted(os.sched_getaffinity(0))
    tried: list[Trial] = []

    def fits(streams: int) -> bool:
        with server(model, "--streams-per-replica", str(streams), core=first) as (pid, address):
            tried.append(done := trial([pid], address, streams, seconds))
        print(done, flush=True)
        return done.p999_ms < LIMIT_MS

    os.sched_setaffinity(0, {*others} or {first})
    low, high = 0, 1
    while high <= MOST and fits(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    os.sched_setaffinity(0, {first, *others})
    return sorted((t for t in tried if t.p999_ms < LIMIT_MS), key=lambda t: t.streams)


def compare(model: str, streams: int, seconds: float) -> None:
    """Print how one and two replicas carry so many streams each."""
    per_stream = []
    for count in (1, 2):
        options = "--replicas", f"{count}:{count}", "--streams-per-replica", str(streams)
        with server(model, *options) as (pid, address):
            while len(replicas := [p for p in below(pid) if is_replica(p)]) < count:
                time.sleep(0.5)
            wait_for(address, count * streams)
            done = trial(replicas, address, count * streams, seconds)
        per_stream.append(1e3 * done.cpu / done.streams)
        print(f"{count} replicas, {done}; {per_stream[-1]:.2f} ms of a core per second of stream")
    print(f"two replicas carry {2 * per_stream[0] / per_stream[1]:.2f} times the streams of one")


def wait_for(address: str, places: int) -> None:
    """Wait until the server has so many places."""
    while True:
        with urllib.request.urlopen(f"http://{address}/models") as answer:
            if json.load(answer)["places"] >= places:
                return
        time.sleep(0.5)


def below(process: int) -> list[int]:
    """Return the children of a process, and theirs."""
    files = Path(f"/proc/{process}/task").glob("*/children")
    children = [int(child) for file in files for child in file.read_text().split()]
    return [*children, *(other for child in children for other in below(child))]


def is_replica(process: int) -> bool:
    """Return whether a process runs a `rtsep.serve.actor.Actor`."""
    return Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::Actor")


def snapshot_bytes(model: str) -> int:
    """Return the size of the state of a stream."""
    return len(Stream("", Greeting(HELLO), Batch(weights.find(model), 1), DEFAULT).save())


def paper(best: Trial, state: int) -> list[str]:
    """Return what a fleet of streams needs if machines are like this core, and nothing else."""
    cores = -(-FLEET // best.streams)
    audio = 2 * (HELLO.message_length + 60) / PACKET_S  # with headers of WebSocket, TCP and IP
    return [
        f"{FLEET} streams on paper: {cores} cores, {-(-cores // CORES)} machines of {CORES} cores",
        f"  memory {cores * best.memory_mb / 1e3:.0f} GB of replicas, "
        f"{FLEET * state / 1e9:.1f} GB of snapshots, {state / 1e3:.0f} kB each",
        f"  network {FLEET * audio * 8 / 1e9:.2f} Gbit/s of sound in both directions, "
        f"{FLEET * state * 8 / 1e9:.1f} Gbit/s of snapshots between machines",
        "  measured: streams of a core, memory of a replica, sizes of packets and snapshots",
        "  not measured: a network, several machines, losses, other programs",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="speech")
    parser.add_argument("--seconds", type=float, default=20.0, help="sound of each trial; 20")
    parser.add_argument("--replicas", type=int, metavar="N", help="compare replicas of N streams")
    arguments = parser.parse_args()
    if arguments.replicas is not None:
        compare(arguments.model, arguments.replicas, arguments.seconds)
        return
    fitting = largest(arguments.model, arguments.seconds)
    if not fitting:
        sys.exit("not even one stream keeps the limit here")
    best, calm = fitting[-1], min(fitting, key=lambda trial: trial.median_ms)
    print(f"streams per core with p99.9 below {LIMIT_MS:.0f} ms: {best.streams}")
    bundle = weights.find(arguments.model)
    model_ms = calm.hop_ms * PACKET_S * bundle.spec.sample_rate / bundle.spec.step_length
    used_ms = 1e3 * PACKET_S * calm.cpu / calm.streams
    print(
        f"serving adds to a packet of 20 ms, with {calm.streams} streams: "
        f"{calm.median_ms - model_ms:.2f} ms until its reply, "
        f"{used_ms - model_ms:.2f} ms of processor time beside {model_ms:.2f} ms of the model"
    )
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    loads: Any = engine.most(bundle, MOST, 2.0, engine.batched)
    print(f"rtsep bench --streams on the same core: {engine.largest(loads)}")
    print("\n".join(paper(best, snapshot_bytes(arguments.model))))


if __name__ == "__main__":
    main()
