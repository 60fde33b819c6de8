"""The child process of PortAudio: ``python -m rtsep.devices.portaudio.child KEY``.

After the death of a sound server, PortAudio can neither be closed nor restarted, and may abort its
process; only ending the process helps. So PortAudio runs in a child process, whose callback works
on memory shared with the parent. Requests are lines of JSON on standard input; each gets one reply
on standard output. The child ends at the end of its input, that is, with its parent.
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
"""Interval between checks of the device, in seconds."""
_PATIENCE_S = 2.0
"""Longest time for PortAudio to terminate, in seconds."""


class Host:
    """Executes the requests; each method is one.

    Parameters
    ----------
    key
        Key of the shared memory.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._stream: Any = None
        self._memory: Any = None

    def find(self, query: int | str | None, kind: Any) -> dict[str, Any]:
        """As `rtsep.devices.portaudio.library.find`, with more entries.

        ``full_name`` finds the same device again; ``period`` is that of its server, see
        `rtsep.devices.portaudio.library.period`.
        """
        from rtsep.devices.portaudio import library

        found = library.find(query, kind)
        name, period = library.full_name(found), library.period(found)
        return {**found, "full_name": name, "period": period}

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
        """Open the stream; ``record`` is the offset of its record in ``size`` bytes of memory."""
        from rtsep.devices.portaudio.library import Stream

        self._memory = np.frombuffer(attach(self._key, size), np.uint8)
        userdata = self._memory.ctypes.data + record
        self._stream = Stream(userdata=userdata, **options)
        return {"name": self._stream.name, "latency_s": self._stream.latency_s}

    def start(self, lost: int) -> None:
        """Start the stream; set the int64 at offset ``lost`` when the device is lost."""
        self._stream.start()
        flag = self._memory[lost : lost + 8].view(np.int64)
        threading.Thread(target=self._watch, args=(flag,), daemon=True).start()

    def _watch(self, flag: Any) -> None:
        while self._stream.active:
            time.sleep(_WATCH_S)
        flag[0] = 1

    def end(self) -> None:
        """Terminate PortAudio properly; clients that vanish disturb other programs' sound."""
        library = sys.modules.get("rtsep.devices.portaudio.library")
        if self._stream is not None:
            self._stream.close()
        if library is not None:
            library.end()


def main() -> None:
    """Execute requests until the end of the input."""
    # Ctrl-C and service managers stop the parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keep the output of libraries apart from replies
    # Load compiled code, which takes a second, while the parent asks for devices.
    threading.Thread(target=importlib.import_module, args=("rtsep.devices.callback",)).start()
    host = Host(sys.argv[1])
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"value": getattr(host, name)(**arguments)}
        except ValueError as error:  # including every RtsepError that is one
            answer = {"error": str(error)}
        try:
            print(json.dumps(answer), file=answers, flush=True)
        except BrokenPipeError:
            break
    ending = threading.Thread(target=host.end, daemon=True)
    ending.start()
    ending.join(_PATIENCE_S)  # it may hang after the death of a sound server
    os._exit(0)


if __name__ == "__main__":
    main()
