"""Losses of workers in words: what Ray and torch say when a worker, its node or its memory has gone."""

from n2n_edge.errors import lack_behind

__all__ = ["first_words", "lacks_memory", "reason_of"]


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


def lacks_memory(error: BaseException | None) -> bool:
    """Tell whether torch had no memory, of the GPU or of the machine."""
    if isinstance(error, MemoryError) or (error is not None and lack_behind(error) == "memory"):
        return True
    text = str(error).lower()
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text or "out of memory" in text
