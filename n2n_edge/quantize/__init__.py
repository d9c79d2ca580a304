"""Quantized models: what they were made from."""
