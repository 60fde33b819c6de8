"""The tape: a list of operations over one array that one kernel runs, for small graphs.

A graph for one frame has hundreds of operations on a few hundred numbers, and ONNX Runtime needs
more time to start each operation than to execute it. `graph` converts such a graph to a tape, or
raises; `interpreter` runs it. The results equal those of ONNX Runtime except for rounding, which
`rtsep.runtime.tape_step.lay` checks before it uses a tape.
"""
