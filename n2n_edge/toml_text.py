"""Values as TOML text."""

import json
import math
from collections.abc import Sequence

from n2n_edge.errors import InputError
from n2n_edge.foreign import printable

__all__ = ["toml_value"]


def toml_value(value: object) -> str:
    """Return a string, number, truth value or list of these as TOML.

    Raises:
        InputError: a string isn't Unicode, as of a file name that isn't UTF-8.
    """
    if isinstance(value, str):
        if any(0xD800 <= ord(character) < 0xE000 for character in value):
            raise InputError(f"{printable(value)}: a name that isn't UTF-8 can't be written to TOML; rename it")
        # JSON's escapes are TOML's, but for surrogate pairs, which ensure_ascii would write, and for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return json.dumps(value)
