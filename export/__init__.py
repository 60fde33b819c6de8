"""Make the files that ship with the package: bundles, cards, demo, voice and picture."""
