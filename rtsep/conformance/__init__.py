"""Check that a bundle keeps the streaming contract: `checks` in a child process, `report` here."""
