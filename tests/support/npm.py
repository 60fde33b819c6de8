"""onnxruntime-web for Node, as npm installs it; kept in the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import platformdirs
import pytest

VERSION = "1.30.0"


def skip(reason: str) -> None:
    """Skip the test, except in CI."""
    pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)


def node_modules() -> Path:
    """The folder ``node_modules`` with onnxruntime-web; without npm, the test is skipped."""
    if not (shutil.which("node") and shutil.which("npm")):
        skip("Node and npm are not installed (Debian, Ubuntu: apt install nodejs npm)")
    folder = platformdirs.user_cache_path("rtsep-tests") / f"onnxruntime-web-{VERSION}"
    found = folder / "node_modules"
    if not (found / "onnxruntime-web/package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]
        done = subprocess.run(
            [*command, str(folder), f"onnxruntime-web@{VERSION}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            skip(f"npm can't install onnxruntime-web: {done.stderr[:200]}")
    return found
