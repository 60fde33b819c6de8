"""`rtsep serve` as a process of its own: started, used and ended."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rtsep
from tests.support.command import refused
from tests.support.patience import PATIENCE_S
from tests.support.serving import MODEL, noise

pytest.importorskip("websockets")
pytest.importorskip("prometheus_client")


def test_it_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rtsep", "serve", "--port", "0", "--token", "auto"]
    command += ["--model", MODEL, "--streams-per-replica", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(rf"{MODEL}, up to 2 streams: (http://\S+/#token=\S+)\n", line)
        assert found, line
        mixture = noise(0.4)[:, 0]
        with rtsep.remote(found[1], patience_s=PATIENCE_S) as sep:
            speech = sep.process(mixture)["speech"][sep.latency.samples :]
            expected = rtsep.separate(mixture, 16000, MODEL)["speech"][: len(speech)]
            np.testing.assert_allclose(speech, expected, atol=1e-5)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=PATIENCE_S)
            assert (process.returncode, err) == (0, "")
    finally:
        process.kill()
        process.wait()


def test_what_can_not_be_served_is_one_sentence() -> None:
    assert "--token auto" in refused("serve", "--host", "0.0.0.0")
    assert "neither a file nor a shipped model" in refused("serve", "--port", "0", "-m", "none")
    for wrong in ("0:2", "3:2", "2", "a:b"):
        assert "such as 1:4" in refused("serve", "--replicas", wrong)
