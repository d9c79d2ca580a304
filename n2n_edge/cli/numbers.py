"""Numbers with commas between, as options take them."""

from math import isfinite

from n2n_edge.errors import InputError

__all__ = ["numbers"]


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Return the numbers of an option's text, None where it isn't given; raises `InputError` for anything else."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text}: not numbers with commas between; give such as 0.485,0.456,0.406") from error
    if not all(map(isfinite, values)):
        raise InputError(f"{option} {text}: not a finite number; give such as 0.485,0.456,0.406")
    return values
