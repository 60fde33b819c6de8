"""A bundle and what runs it: the model's step, the engine around it, resampling, timing."""
