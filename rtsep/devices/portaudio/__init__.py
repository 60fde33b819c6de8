"""PortAudio, in a child process that can be ended when it hangs."""
