"""Scores of learned sources: the papers' protocol, live and offline, and a Wiener filter."""
