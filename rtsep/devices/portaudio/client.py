"""The parent's side of the child process of PortAudio."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from typing import Any

from rtsep.devices.portaudio.shared_memory import Shared
from rtsep.errors import DeviceError, LostError

PATIENCE_S = 30.0
"""Longest time for a reply, in seconds; busy machines start slowly."""
_CLOSING_S = 3.0


class Process:
    """Starts the child process of `rtsep.devices.portaudio.child` and sends it requests.

    Parameters
    ----------
    memory
        Memory shared with the child; created if not given.
    """

    def __init__(self, memory: Shared | None = None) -> None:
        self.memory = memory or Shared()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "rtsep.devices.portaudio.child", self.memory.key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=self.memory.descriptors,
            start_new_session=True,  # Ctrl-C is for the parent
            text=True,
            encoding="utf-8",
        )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="rtsep host", daemon=True).start()

    def _listen(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as lines:
            for line in lines:
                self._answers.put(line)
        self._answers.put("")

    def ask(self, request: str, **arguments: Any) -> Any:
        """Send a request, see `rtsep.devices.portaudio.child.Host`, and return the reply.

        Raises
        ------
        LostError
            The child has ended, or did not reply within `PATIENCE_S` and was killed.
        DeviceError
            The request failed.
        """
        assert self._child.stdin is not None
        try:
            print(json.dumps([request, arguments]), file=self._child.stdin, flush=True)
            line = self._answers.get(timeout=PATIENCE_S)
        except (OSError, ValueError, queue.Empty):
            line = ""
        if not line:
            self.kill()
            raise LostError("PortAudio does not answer")
        answer = json.loads(line)
        if "error" in answer:
            raise DeviceError(answer["error"])
        return answer["value"]

    def find(self, query: int | str | None, kind: Any) -> dict[str, Any]:
        """As `rtsep.devices.portaudio.library.find`, in the child process."""
        found: dict[str, Any] = self.ask("find", query=query, kind=kind)
        return found

    @property
    def alive(self) -> bool:
        """Whether the child process runs."""
        return self._child.poll() is None

    def close(self) -> None:
        """End the child process, by force if necessary; may be repeated."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.close()
            self._child.wait(_CLOSING_S)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()

    def kill(self) -> None:
        """Kill the child process."""
        self._child.kill()
        self._child.wait()
