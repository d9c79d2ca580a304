"""Training engine: an ONNX graph executed in torch, distillation, and evaluation."""
