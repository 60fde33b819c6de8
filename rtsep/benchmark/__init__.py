"""Measure latency, time, memory and streams of models on this machine, for `rtsep bench`.

`trials` times one model, `streams` finds how many live streams one core carries, `roofline`
measures the core's peak, `machine` describes it, `result` collects the figures, `page` and `plots`
make the report.
"""
