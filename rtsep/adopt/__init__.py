"""Make bundles of streaming models by others: once, by changing their graphs.

`description` says which input and output of a graph is what, `adoption` makes the bundle. Each kind
of model has a module: `spectrum`, `mask_then_samples` and `samples`.
"""
