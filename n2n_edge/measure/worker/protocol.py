"""Protocol version, limits and errors that all parts of the worker share."""

from __future__ import annotations

PROTOCOL = 2
MAX_SAMPLES = 100_000


class RefusedError(Exception):
    """The model or an option can't be used as given: the user's to change."""


class FallbackError(Exception):
    """An execution provider that was asked for did none of the work."""
