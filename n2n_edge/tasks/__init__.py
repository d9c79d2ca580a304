"""Reading of a model's outputs: kinds, losses, metrics."""
