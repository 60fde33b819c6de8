"""Audio devices: PortAudio, paced and fake ones, and the callback they share."""
