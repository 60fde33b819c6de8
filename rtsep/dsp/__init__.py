"""Signal processing over arrays: transforms, windows, overlap-add, resampling, mixing, rings."""
