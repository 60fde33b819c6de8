"""A live stream: the worker thread, what it calls, recording, control and reconnection."""
