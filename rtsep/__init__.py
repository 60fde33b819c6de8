"""Real-time, low-latency audio source separation on a live microphone."""

__version__ = "0.1.0"
