"""What the pages of the report have in common: the template environment and the colours."""

import jinja2

__all__ = ["INK", "page_environment", "svg_environment"]

INK: dict[str, tuple[str, str]] = {
    "page": ("#fbfbf9", "#171716"),
    "panel": ("#ffffff", "#1f1f1e"),
    "ink": ("#1c1c1a", "#ecebe6"),
    "muted": ("#5f5e58", "#aaa9a1"),
    "hair": ("#deddd6", "#3a3a37"),
    "faint": ("#8f8e86", "#807f78"),
    "pale": ("#cfdcec", "#34455c"),
    "blue": ("#2563b8", "#79aaf0"),
    "orange": ("#b85400", "#f0994a"),
    "good": ("#1a7340", "#63c48a"),
    "bad": ("#b3261e", "#f2837b"),
}
"""Every colour of a page and its pictures, in light and in dark."""


def page_environment() -> jinja2.Environment:
    """Return what renders pages: colours are variables of the page, and follow the reader's scheme."""
    return _environment({name: f"var(--{name})" for name in INK})


def svg_environment() -> jinja2.Environment:
    """Return what renders pictures that stand alone: colours are those of a light page."""
    return _environment({name: light for name, (light, _) in INK.items()})


def _environment(ink: dict[str, str]) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("n2n_edge.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(ink=ink, schemes=INK)
    return environment
