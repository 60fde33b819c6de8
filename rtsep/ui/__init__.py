"""The web panel: server, sessions and page."""
