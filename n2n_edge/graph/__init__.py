"""The ONNX graph: load, layers, channel groups, architectures, `build()`, costs."""
