"""Labels that are more than a class: objects, points, masks and numbers, in the formats that people keep them in."""

from n2n_edge.data.labels.geometry import composed, mirroring, placing, transformed
from n2n_edge.data.labels.reading import read_annotations
from n2n_edge.data.labels.run_lengths import RunLengths
from n2n_edge.data.labels.values import Annotated, Label, Mask, MaskFile, Numbers, Objects, Points

__all__ = [
    "Annotated",
    "Label",
    "Mask",
    "MaskFile",
    "Numbers",
    "Objects",
    "Points",
    "RunLengths",
    "composed",
    "mirroring",
    "placing",
    "read_annotations",
    "transformed",
]
