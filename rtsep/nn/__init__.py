"""The streaming contract of every model, its layers and its checks (torch)."""
