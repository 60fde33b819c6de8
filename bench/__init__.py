"""The suites: timings by pytest-benchmark, live runs, quality on the fixed sets."""
