"""Datasets that tests give by name."""

import sys
from collections.abc import Sequence
from types import ModuleType

import pytest

__all__ = ["items_of"]


def items_of(monkeypatch: pytest.MonkeyPatch, items: Sequence[object]) -> str:
    """Return the name of a function that gives these items, images or pairs of image and label."""
    module = ModuleType("given_items")
    module.__dict__["load"] = lambda: list(items)
    monkeypatch.setitem(sys.modules, "given_items", module)
    return "given_items:load"
