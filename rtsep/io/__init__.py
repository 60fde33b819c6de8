"""Devices and files: where audio comes from and goes to."""
