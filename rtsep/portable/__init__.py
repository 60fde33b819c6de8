"""The whole separator as one plain ONNX graph: samples in, samples out, state as a tensor."""
