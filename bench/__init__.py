"""Measurements: timings, live runs, scores, soak test and fuzzing."""
