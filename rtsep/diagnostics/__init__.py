"""What may be wrong with an installation: `rtsep doctor` and the self-test."""
