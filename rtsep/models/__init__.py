"""One architecture per file, its paper cited in the docstring (torch)."""
