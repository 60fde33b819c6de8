"""The terminal while `rtsep run` runs: key bindings, view, screen and loop."""
