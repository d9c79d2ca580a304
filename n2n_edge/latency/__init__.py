"""Prediction of latency and energy: kernels, rates, evidence, intervals."""
