"""Training: mixtures, losses, the loop (torch)."""
