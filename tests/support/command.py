"""The command line, run in this process or in one of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from click.testing import CliRunner, Result

from rtsep.cli import main

NO_CARD = """
import sys
from rtsep.cli import main
from rtsep.devices import open as opening
from rtsep.errors import DeviceError
def find(query, kind, process):
    raise DeviceError("there is no sound card")
opening.find = find
main(sys.argv[1:])
"""
"""The command line on a machine that has no sound card, so that no test is heard."""


def rtsep(*arguments: object) -> Result:
    """Run a command in this process; it never ends with a traceback."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refused(*arguments: object) -> str:
    """Run a command that fails with exit code 2 and one sentence, which is returned."""
    result = rtsep(*arguments)
    assert result.exit_code == 2, result.output
    sentence, end = result.stderr[:-1], result.stderr[-1:]
    assert sentence.startswith("rtsep: ") and end == "\n" and "\n" not in sentence
    return sentence


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", NO_CARD, "run", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stems(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {path.stem: soundfile.read(path, always_2d=True)[0] for path in folder.glob("*.wav")}
