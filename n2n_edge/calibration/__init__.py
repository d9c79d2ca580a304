"""Calibration of a device's profile: a pack of models, timed on a target, and the fit of its rates."""
