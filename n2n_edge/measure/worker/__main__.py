"""Entry point of the worker's archive: modules imported from memory, so that nothing is stored where it runs."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

PACKAGE = "n2n_edge_worker"


class ArchiveImporter:
    """Finder and loader of the modules in a `zipfile.ZipFile`."""

    def __init__(self, archive: Any) -> None:
        self.sources = {name: archive.read(name) for name in archive.namelist()}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] != PACKAGE or self.file_of(fullname) not in self.sources:
            return None
        loader: Any = self
        return importlib.util.spec_from_loader(fullname, loader, origin=self.file_of(fullname))

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: Any) -> None:
        file = self.file_of(module.__name__)
        exec(compile(self.sources[file], file, "exec"), module.__dict__)

    def is_package(self, fullname: str) -> bool:
        return fullname == PACKAGE

    def file_of(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ("/__init__.py" if self.is_package(fullname) else ".py")


def main(archive: Any) -> None:
    """Serve, with the modules of an archive that was read from stdin."""
    sys.meta_path.insert(0, ArchiveImporter(archive))
    importlib.import_module(f"{PACKAGE}.serving").serve(sys.argv[1:])
