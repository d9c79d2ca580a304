"""Labels that are more than a class: objects, points, masks and numbers, in the formats that people keep them in."""
