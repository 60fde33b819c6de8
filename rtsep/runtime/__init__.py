"""Load bundles and run them: model step, engine, resampling, timing."""
