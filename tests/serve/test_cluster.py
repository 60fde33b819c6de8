"""Two Ray nodes on this machine: replicas follow the streams, which survive the end of a node."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import rtsep
from tests.support.cluster import Machines, Served, machines, served
from tests.support.serving import MODEL, PATIENCE_S, noise

pytest.importorskip("ray", reason="Ray is not installed: pip install 'rtsep[serve]'")
pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")
pytestmark = [
    pytest.mark.device,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

PLACES = 3
"""Streams of a replica; there is one per node."""
PAUSE_S = 0.03
"""Time between the reply to a packet of 20 ms and the next packet: slower than real time."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Machines]:
    with machines() as running:
        yield running


@pytest.fixture(scope="module")
def cluster(nodes: Machines) -> Iterator[Served]:
    with served(nodes.address, PLACES, replicas=(1, 2), spare_s=1.0) as running:
        yield running


class Client:
    """A stream in a thread of its own."""

    def __init__(self, url: str, seed: int) -> None:
        self.mixture = noise(30.0, seed=seed)[:, 0]
        self.stems = np.zeros_like(self.mixture)
        self.done, self.slowest_s = 0, 0.0
        self.sep = rtsep.remote(url, patience_s=PATIENCE_S, give_up_s=PATIENCE_S)

    def go(self, packets: int) -> None:
        """Separate so many more."""
        for _ in range(packets):
            start = time.monotonic()
            own = slice(self.done, self.done + self.sep.block)
            self.stems[own] = self.sep.process(self.mixture[own])["speech"]
            self.done = own.stop
            self.slowest_s = max(self.slowest_s, time.monotonic() - start)
            time.sleep(PAUSE_S)

    def check(self) -> None:
        """Compare with offline runs that are cut where this stream was."""
        start, known = 0, np.zeros(0, np.int64)  # the samples that the model remembers
        for cut, following in [*self.sep.cuts, (0, self.done)]:
            heard = np.concatenate([known, np.arange(start, following)])
            speech = rtsep.separate(self.mixture[heard], 16000, MODEL)["speech"]
            count = len(heard) - max(len(known), self.sep.latency.samples)
            made, late = self.stems[following - count : following], self.sep.latency.samples
            expected = speech[len(heard) - late - count : len(heard) - late]
            np.testing.assert_allclose(made, expected, atol=1e-5)
            known = np.concatenate([heard[heard < cut], np.arange(following, cut)])
            start = following


def together(clients: list[Client], packets: int) -> None:
    """Let all separate so many more, at the same time."""
    threads = [threading.Thread(target=client.go, args=[packets]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wait_until(condition: Callable[[], bool], clients: list[Client]) -> None:
    """Let the streams go on, slowly, so that they are not closed meanwhile."""
    end = time.monotonic() + 3 * PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        together(clients, 1)
        time.sleep(0.2)


def streams_on_both(cluster: Served) -> list[Client]:
    """So many streams that a second replica starts, on the second node, and takes the last two."""
    clients = [Client(cluster.url, seed) for seed in range(PLACES)]
    wait_until(lambda: cluster.replicas() == 2, clients)
    return [*clients, *(Client(cluster.url, PLACES + seed) for seed in range(2))]


def test_the_command_serves_on_the_cluster_until_it_is_interrupted(nodes: Machines) -> None:
    command = [sys.executable, "-m", "rtsep", "serve", "--port", "0", "--address", nodes.address]
    command += ["--model", MODEL, "--streams-per-replica", "2", "--replicas", "1:2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(rf"{MODEL}, up to 4 streams: (http://\S+)/\n", line)
        assert found, line
        client = Client(found[1], seed=0)
        client.go(10)
        client.check()
        client.sep.close()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0 and "Traceback" not in err, err
    finally:
        process.kill()
        process.wait()


def test_replicas_follow_the_streams_which_move_without_a_gap(cluster: Served) -> None:
    assert cluster.replicas() == 1
    clients = streams_on_both(cluster)
    clients.append(Client(cluster.url, 2 * PLACES))  # twice as many as one replica takes
    together(clients, 10)
    with pytest.raises(rtsep.RemoteError, match="no more streams"):
        rtsep.remote(cluster.url, give_up_s=0.0)
    stay = [clients[0], clients[-1]]  # of different replicas
    for client in clients:
        client.check()
        if client not in stay:
            client.sep.close()
    wait_until(lambda: cluster.replicas() == 1, stay)
    together(stay, 25)
    assert sum(client.sep.reconnects for client in stay) == 1
    for client in stay:
        assert not client.sep.cuts
        client.check()
        client.sep.close()


def test_streams_of_a_dead_node_go_on_from_their_snapshots(
    nodes: Machines, cluster: Served
) -> None:
    clients = streams_on_both(cluster)
    for client in clients[1:PLACES]:  # make room for orphans
        client.sep.close()
    clients = [clients[0], *clients[PLACES:]]
    together(clients, 60)
    nodes.kill()
    together(clients, 60)
    orphans = [client for client in clients if client.sep.reconnects]
    assert 0 < len(orphans) < len(clients)
    for client in clients:
        client.check()
        if client in orphans:
            # What was before the last snapshot is remembered; that may be everything.
            assert all(cut > 0 for cut, _ in client.sep.cuts)
            forgotten_s = sum(n - m for m, n in client.sep.cuts) / 16000  # shown by `pytest -s`
            print(f"it went on after {client.slowest_s:.2f} s, without {forgotten_s:.2f} s before")
        client.sep.close()
