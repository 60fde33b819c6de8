"""``python -m rtsep``."""

from rtsep.cli import main

main(prog_name="rtsep")
