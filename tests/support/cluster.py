"""Ray clusters of several nodes on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import MODEL, PATIENCE_S

RAYS_LIMIT_S = 15.0
"""Ray's own limit for the start of a node's services; what fails sooner is a fault."""


class Machines:
    """Two Ray nodes of one core each."""

    def __init__(self, address: str, second: Any) -> None:
        self.address, self._second = address, second

    def kill(self) -> None:
        """End the second node as a loss of power would."""
        raylet = self._second.all_processes["raylet"][0].process.pid
        for process in (raylet, *_below(raylet)):
            os.kill(process, signal.SIGKILL)


def _below(process: int) -> list[int]:
    """Children of a process, and theirs."""
    found = [
        int(child)
        for file in Path(f"/proc/{process}/task").glob("*/children")
        for child in file.read_text().split()
    ]
    return [*found, *(other for child in found for other in _below(child))]


def _name_ports(patch: pytest.MonkeyPatch) -> None:
    """Give the ports of a node's own services to its raylet, which gives up after 15 s without."""
    from ray._private.node import Node
    from ray._raylet import persist_port

    usual = Node.start_ray_processes

    def start(node: Any) -> None:
        for name in ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"):
            persist_port(node.get_session_dir_path(), node._node_id, name, -1)  # not in use
        usual(node)

    patch.setattr(Node, "start_ray_processes", start)
    patch.setenv("RAY_enable_metrics_collection", "0")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def machines() -> Iterator[Machines]:
    """Start two nodes on this machine; skip where Ray gives up, as it does on a very slow one."""
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    folder = tempfile.mkdtemp(prefix="rtsep-")  # short: sockets lie in it
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("RAY_TMPDIR", folder)  # for a file with the address
        (Path(folder) / "ray").mkdir()
        _name_ports(patch)
        cluster = Cluster()
        stack.callback(cluster.shutdown)
        start = time.monotonic()
        try:
            cluster.add_node(**size, runtime_env_agent_port=_free_port(), temp_dir=folder)
            second = cluster.add_node(**size, runtime_env_agent_port=_free_port())
        except Exception as error:  # of several types
            if time.monotonic() - start < RAYS_LIMIT_S:
                raise
            pytest.skip(f"Ray does not start two nodes here: {error}")
        yield Machines(cluster.address, second)


class Served:
    """The address of a front, and what it knows of its replicas."""

    def __init__(self, front: Any, port: int) -> None:
        self._front, self.url = front, f"http://127.0.0.1:{port}"

    def replicas(self) -> int:
        return len(self._front.reports())


@contextmanager
def served(
    address: str, places: int, replicas: tuple[int, int], spare_s: float
) -> Iterator[Served]:
    """A front in a thread of this process."""
    import ray

    from rtsep.serve.actor import Plan
    from rtsep.serve.cluster import serve_front
    from rtsep.serve.front import Front
    from rtsep.ui.server import listen

    said: list[str] = []
    plan = Plan("127.0.0.1", 0, models=[MODEL], places=places, replicas=replicas)
    with ExitStack() as stack:
        ray.init(address, log_to_driver=False, logging_level="ERROR")
        stack.callback(ray.shutdown)
        front = Front(plan, said.append, spare_s)
        listener = stack.enter_context(listen("127.0.0.1", 0))
        loop, ended, begun = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

        def answer() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve_front(front, listener, None, begun.set, ended))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert begun.wait(PATIENCE_S)
        try:
            yield Served(front, listener.getsockname()[1])
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert len(said) <= 1, said  # of the replica that was lost
