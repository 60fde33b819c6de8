"""The version, for whoever is below the public names."""

__version__ = "0.1.0"
