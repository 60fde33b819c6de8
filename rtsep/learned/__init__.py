"""Sources learned from seconds of sound, and the bundles made of them on the fly; no torch."""
