"""Worker that times models in a process of its own, on this host or a board.

Self-contained (standard library, numpy, onnxruntime; Python >= 3.8): `n2n_edge.measure.launch` sends these files
through stdin, as a zip archive, to an interpreter that has nothing else of n2n-edge. It speaks JSON, one document a
line: requests on stdin, events on stdout. First comes ``ready``; then each request is answered by ``phase`` events and
at last ``result`` or ``error``. It ends when stdin does, or when its parent is gone; a holder (``--holder``) holds the
folder that models are put into, and takes it along when it ends.
"""

from __future__ import annotations

PROTOCOL = 2
MAX_SAMPLES = 100_000


class RefusedError(Exception):
    """The model or an option can't be used as given: the user's to change."""


class FallbackError(Exception):
    """An execution provider that was asked for did none of the work."""
