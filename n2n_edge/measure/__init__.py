"""Timing of models in isolated workers, on this machine or a board, and the uncertainty of what they give."""
