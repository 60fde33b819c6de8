"""Small graphs without ONNX Runtime: a tape of operations over one array, run by one kernel.

A graph of one frame is hundreds of operations on a few hundred numbers, and starting each takes
ONNX Runtime longer than doing it. `graph` lays such a graph out as a tape, or says that it can't;
`interpreter` runs it. The numbers are those of ONNX Runtime but for rounding, which
`rtsep.runtime.tape_step.lay` checks before it uses a tape.
"""
