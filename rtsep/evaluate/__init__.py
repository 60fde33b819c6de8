"""Scores of a separation on a folder of mixtures with known sources."""
