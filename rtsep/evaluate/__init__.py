"""Score a model on a folder of mixtures with known sources."""
