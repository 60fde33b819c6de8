"""A live stream: worker thread, processing chain, recording, control and reconnection."""
