"""Gate of a CI job: budget files, checks, verdicts and their writers; ``n2n_edge.gate(...)`` calls it."""

import sys
from importlib import import_module
from types import ModuleType


class _CallableModule(ModuleType):
    """This package, which is a function as well: importing it takes the name that the public function has, too."""

    def __call__(self, *models: object, **options: object) -> object:
        return import_module("n2n_edge.runs.gating").gate(*models, **options)


sys.modules[__name__].__class__ = _CallableModule
