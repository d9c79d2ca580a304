"""Losses of workers in words: what Ray and torch say when a worker, its node or its memory has gone."""

from n2n_edge.errors import lack_behind, message_of

__all__ = ["first_words", "lacks_memory", "reason_of", "why_not"]

_MOST_LETTERS = 300


def reason_of(error: Exception, name: str) -> str:
    """Return in words how an evaluation was lost with its worker."""
    text = str(error).lower()
    if "node is dead" in text or "node died" in text or "node failure" in text:
        return f"the node of {name} has gone"
    if "outofmemory" in type(error).__name__.lower() or "memory monitor" in text or "low on memory" in text:
        return f"no memory was left on {name}"
    return f"{name} ended (killed, crashed, or given up in a step without an end)"


def first_words(error: Exception) -> str:
    """Return what an error of Ray says first, which may be behind the trace of a remote process."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error" in line), lines[0] if lines else type(error).__name__)


def why_not(error: Exception) -> str:
    """Return why Ray couldn't be connected to: the error that a trace of the cluster's ends with, or all of its lines.

    >>> why_not(ConnectionError("Version mismatch: The cluster was started with:\\n  Ray: 2.60.0\\n"))
    'Version mismatch: The cluster was started with: Ray: 2.60.0'
    """
    text = first_words(error) if "Traceback" in str(error) else message_of(error) or type(error).__name__
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS].rstrip()} ..."


def lacks_memory(error: BaseException | None) -> bool:
    """Tell whether torch had no memory, of the GPU or of the machine."""
    if isinstance(error, MemoryError) or (error is not None and lack_behind(error) == "memory"):
        return True
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text or "out of memory" in text
