"""What a model costs on this machine: measured, in one command, with everything beside it.

`trials` times one model, `streams` finds how many live streams fit on a core, `machine` says what
it was measured on, `result` gathers the figures, `page` and `plots` make the report.
"""
