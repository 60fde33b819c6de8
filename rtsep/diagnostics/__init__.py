"""Checks of an installation for `rtsep doctor`, and the self-test."""
