"""Profiles as TOML: writing calibrations into a file, and finding the line that an error is about."""

import re
from collections.abc import Iterable, Sequence

from n2n_edge.devices.profile import Calibration, Profile
from n2n_edge.writing import toml_value

__all__ = ["line_of", "profile_text", "with_calibrations"]

_REMARK = "# Fitted "
_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+?)\s*=")


def profile_text(profile: Profile) -> str:
    """Return a profile as TOML text."""
    values = profile.model_dump(mode="json", exclude_none=True)
    return "\n".join(f"{name} = {toml_value(value)}" for name, value in values.items()) + "\n"


def with_calibrations(text: str, calibrations: Iterable[Calibration], remark: str) -> str:
    """Return a profile's TOML text with these calibrations in place of those it has; the rest stays as it is.

    `remark` says what wrote them, on a line of its own.
    """
    kept, skipping = [], False
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header is not None:
            skipping = header[2].split(".")[0].strip() == "calibrations"
        if not skipping and not line.startswith(_REMARK):
            kept.append(line)
    rest = "\n".join(kept).rstrip() + "\n"
    blocks = [_block(calibration) for calibration in calibrations]
    return f"{rest}\n{_REMARK}{remark}\n" + "\n".join(blocks) if blocks else rest


def line_of(text: str, location: Sequence[int | str]) -> int:
    """Return the number of the line that sets the value at `location`, or the nearest one that holds it."""
    tables: list[int | str] = []
    counts: dict[str, int] = {}
    best, best_depth = 1, 0
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.match(line), _KEY.match(line)
        if header is not None:
            name = header[2]
            if header[1] == "[[":
                counts[name] = counts.get(name, -1) + 1
            tables = []
            for part in name.split("."):
                tables.append(part.strip("\"'"))
                if part in counts:
                    tables.append(counts[part])
            path = tables
        elif key is not None:
            path = [*tables, *(part.strip("\"'") for part in key[1].split("."))]
        else:
            continue
        depth = _shared(path, location)
        if depth > best_depth and depth == len(path):
            best, best_depth = number, depth
    return best


def _shared(path: Sequence[int | str], location: Sequence[int | str]) -> int:
    """Return how many parts two locations have in common, from the left."""
    count = 0
    for mine, wanted in zip(path, location, strict=False):
        if mine != wanted:
            break
        count += 1
    return count


def _block(calibration: Calibration) -> str:
    values = calibration.model_dump(mode="json")
    rates = values.pop("rates")
    lines = ["[[calibrations]]", *(f"{name} = {_literal(value)}" for name, value in values.items())]
    lines += ["", "[calibrations.rates]  # ns for one unit, or nJ where quantity is energy"]
    lines += [f"{term} = {rate:.4g}" if rate < 1000 else f"{term} = {rate:.0f}.0" for term, rate in rates.items()]
    return "\n".join(lines) + "\n"


def _literal(value: object) -> str:
    """Return a value as TOML, floats with four digits."""
    if isinstance(value, list):
        return f"[{', '.join(_literal(each) for each in value)}]"
    if isinstance(value, float):
        return repr(float(f"{value:.4g}")) if abs(value) < 1e4 else f"{value:.1f}"
    return toml_value(value)
