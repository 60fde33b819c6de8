"""The repository and the files of it that tests read."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "rtsep" / "demo.flac"
