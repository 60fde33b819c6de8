"""Sources learned from seconds of sound, and the bundles built from them; without torch."""
