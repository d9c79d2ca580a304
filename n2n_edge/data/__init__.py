"""Image data: sources, splits, pixels, corruptions; nothing here needs torch."""
