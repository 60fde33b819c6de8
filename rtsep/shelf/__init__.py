"""Add models by others to the user's folder: `table` of the known ones, `download`, `adding`."""
