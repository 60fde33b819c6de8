"""The process that hosts PortAudio: ``python -m rtsep.devices.portaudio.child KEY``.

Where a sound server has died, PortAudio can neither be closed nor started again, and may even abort
its process; only ending that helps. So it has one of its own, which runs the callback on memory
that it shares with the process of the worker. Requests come as lines of JSON on standard input, one
answer each goes to standard output. At the end of the input it ends: when its parent does, however
that happens.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from typing import Any

import numpy as np

from rtsep.devices.portaudio.shared_memory import attach

_WATCH_S = 0.05
"""How often is looked whether the device is still there."""
_PATIENCE_S = 2.0
"""Longest that PortAudio may take to end."""


class Host:
    """Carries the requests out.

    Parameters
    ----------
    key
        Of the shared memory.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._stream: Any = None
        self._memory: Any = None

    def find(self, query: int | str | None, kind: Any) -> dict[str, Any]:
        """As `rtsep.devices.portaudio.library.find`; ``full_name`` finds the same device again."""
        from rtsep.devices.portaudio import library

        found = library.find(query, kind)
        return {**found, "full_name": library.full_name(found)}

    def version(self) -> str:
        """As `rtsep.devices.portaudio.library.version`."""
        from rtsep.devices.portaudio import library

        return library.version()

    def rates(self, index: int, kind: Any) -> list[int]:
        """As `rtsep.devices.portaudio.library.rates`, of the device of that index."""
        from rtsep.devices.portaudio import library

        return library.rates(library.find(index, kind), kind)

    def names(self, kind: Any) -> list[str]:
        """As `rtsep.devices.portaudio.library.names`."""
        from rtsep.devices.portaudio import library

        return library.names(kind)

    def refresh(self) -> None:
        """As `rtsep.devices.portaudio.library.refresh`."""
        from rtsep.devices.portaudio import library

        library.refresh()

    def open(self, size: int, record: int, **options: Any) -> dict[str, Any]:
        """Open the stream over a record at an offset in memory of that size, in bytes."""
        from rtsep.devices.portaudio.library import Stream

        self._memory = np.frombuffer(attach(self._key, size), np.uint8)
        userdata = self._memory.ctypes.data + record
        self._stream = Stream(userdata=userdata, **options)
        return {"name": self._stream.name, "latency_s": self._stream.latency_s}

    def start(self, lost: int) -> None:
        """Start the stream; when the device goes away, set the int64 at that offset."""
        self._stream.start()
        flag = self._memory[lost : lost + 8].view(np.int64)
        threading.Thread(target=self._watch, args=(flag,), daemon=True).start()

    def _watch(self, flag: Any) -> None:
        while self._stream.active:
            time.sleep(_WATCH_S)
        flag[0] = 1

    def end(self) -> None:
        """Take leave of the sound server: others would hear a client that vanishes."""
        library = sys.modules.get("rtsep.devices.portaudio.library")
        if self._stream is not None:
            self._stream.close()
        if library is not None:
            library.end()


def main() -> None:
    """Answer requests until there are no more."""
    # The parent is who is told to stop, by Ctrl-C or by a service manager.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    # Compiled code takes a second to load: meanwhile, devices can be found.
    threading.Thread(target=importlib.import_module, args=("rtsep.devices.callback",)).start()
    host = Host(sys.argv[1])
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"value": getattr(host, name)(**arguments)}
        except ValueError as error:  # among them each of our own
            answer = {"error": str(error)}
        try:
            print(json.dumps(answer), file=answers, flush=True)
        except BrokenPipeError:
            break
    ending = threading.Thread(target=host.end, daemon=True)
    ending.start()
    ending.join(_PATIENCE_S)  # it may hang where a server has died
    os._exit(0)


if __name__ == "__main__":
    main()
