"""Audio devices: PortAudio, a paced clock and a fake device, with the same native callback."""
