"""Writes the schemas that follow from the code: `python docs/_ext/schemas.py`. A test says when that is due.

`profile.json` and `profiles.json` come from the pydantic model of a profile, `report.json` from the typed dictionaries
of a run's report. The other schemas are written by hand and tested against real documents.
"""

import inspect
import json
import types
import typing
from pathlib import Path
from typing import Any, NotRequired, Union, get_args, get_origin, get_type_hints

from n2n_edge.devices.profile import Profile
from n2n_edge.metrics.figures import SCHEMA_VERSION, FigureJson, Provenance
from n2n_edge.report.document import RunReport

__all__ = ["FOLDER", "schemas"]

FOLDER = Path(__file__).resolve().parents[1] / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Json = dict[str, Any]

FIGURE: Json = {
    "description": "A value with its unit and where it comes from; low and high bound it, n counts observations; a "
    "latency is of a runtime.",
    "type": "object",
    "additionalProperties": False,
    "required": ["value", "unit", "provenance"],
    "properties": {
        "value": {"type": "number"},
        "unit": {"type": "string"},
        "provenance": {"enum": list(get_args(Provenance))},
        "low": {"type": "number"},
        "high": {"type": "number"},
        "n": {"type": "integer"},
        "runtime": {"type": "string"},
    },
}

_PLAIN: dict[object, Json] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    object: {},
    Any: {},
}


def schemas() -> dict[str, Json]:
    """Return every schema that follows from the code, by file name."""
    return {"profile.json": _profile(), "profiles.json": _profiles(), "report.json": _report()}


def _profile() -> Json:
    schema = Profile.model_json_schema()
    about = "A device profile: the keys of its TOML file."
    return {"$schema": DIALECT, **_plain_words(schema), "title": "n2n-edge profile", "description": about}


def _profiles() -> Json:
    schema = _plain_words(Profile.model_json_schema())
    parts = schema.pop("$defs", {})
    version = {"const": SCHEMA_VERSION}
    one = {"$ref": "#/$defs/Profile"}
    return {
        "$schema": DIALECT,
        "title": "n2n-edge profiles",
        "description": "What `n2n-edge profiles list --json` and `n2n-edge profiles show NAME --json` print.",
        "oneOf": [
            _closed({"schema_version": version, "profiles": {"type": "array", "items": one}}),
            _closed({"schema_version": version, "profile": one}),
        ],
        "$defs": {**parts, "Profile": schema},
    }


def _plain_words(node: Any) -> Any:
    """Leave out titles, and keep of a docstring its first paragraph."""
    if isinstance(node, list):
        return [_plain_words(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {
        name: _plain_words(value) for name, value in node.items() if not (name == "title" and isinstance(value, str))
    }
    if isinstance(kept.get("description"), str):
        kept["description"] = _first_paragraph(kept["description"])
    return kept


def _report() -> Json:
    definitions: Json = {"figure": FIGURE}
    whole = _of(RunReport, definitions)
    name = whole["$ref"].rpartition("/")[2]
    document = definitions.pop(name)
    document["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    about = "A run's `report.json`, and what `n2n-edge compress --json` prints."
    return {
        "$schema": DIALECT,
        "title": "n2n-edge report",
        **document,
        "description": about,
        "$defs": definitions,
    }


def _of(hint: Any, definitions: Json) -> Json:
    """Return the schema of a type hint; typed dictionaries go to `definitions`."""
    if hint == FigureJson:
        return {"$ref": "#/$defs/figure"}
    if hint in _PLAIN:
        return dict(_PLAIN[hint])
    if typing.is_typeddict(hint):
        return _of_typed_dict(hint, definitions)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is list:
        return {"type": "array", "items": _of(inner[0], definitions)}
    if origin is tuple:
        parts = [_of(each, definitions) for each in inner]
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "maxItems": len(parts)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(inner[1], definitions)}
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(each, definitions) for each in inner]}
    raise TypeError(f"no schema for {hint!r}: add it to {Path(__file__).name}")


def _of_typed_dict(hint: Any, definitions: Json) -> Json:
    name = hint.__name__.removesuffix("Json").lower()
    if name not in definitions:
        definitions[name] = {}
        hints = get_type_hints(hint, include_extras=True)
        optional = {field for field, each in hints.items() if get_origin(each) is NotRequired}
        properties = {
            field: _of(get_args(each)[0] if field in optional else each, definitions) for field, each in hints.items()
        }
        required = [field for field in properties if field not in optional]
        about = _first_paragraph(inspect.getdoc(hint) or "")
        definitions[name] = {"description": about, **_closed(properties, required)}
    return {"$ref": f"#/$defs/{name}"}


def _closed(properties: Json, required: list[str] | None = None) -> Json:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties) if required is None else required,
        "properties": properties,
    }


def _first_paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


def as_text(schema: Json) -> str:
    """Return a schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for file_name, found in schemas().items():
        (FOLDER / file_name).write_text(as_text(found), encoding="utf-8")
