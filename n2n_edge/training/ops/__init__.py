"""Torch functions of ONNX operators."""
