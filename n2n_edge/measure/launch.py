"""Launch of a worker: its command, and the archive of its code that is sent through stdin."""

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from n2n_edge.errors import N2NError
from n2n_edge.measure import worker

__all__ = ["Launch", "worker_archive", "worker_arguments"]

BOOTSTRAP = (
    "import sys; sys.version_info < (3, 8) and sys.exit('its Python is %d.%d, 3.8 is needed' % sys.version_info[:2]); "
    "sys.path[:1] == [''] and sys.path.pop(0); import io, zipfile; b = sys.stdin.buffer; n = int(b.readline()); "
    "a = zipfile.ZipFile(io.BytesIO(b.read(n))); m = '__main__.py'; g = {'__name__': 'n2n-edge worker'}; "
    "exec(compile(a.read(m), m, 'exec'), g); g['main'](a)"
)
"""Program of one line, for any shell: it runs the archive from memory. The working folder must not hide modules."""


@dataclass(frozen=True)
class Launch:
    """How a worker is started: the command, what it is told first, and what its deaths mean.

    `heartbeat_s`: how often an empty line tells a far-away worker that somebody is still there. `limit_bytes` is the
    limit on its memory, if it has one; `was_over_limit` tells whether a killed worker was killed for that. `explain`
    may turn an exit code and the last words on stderr into an error. `speaker` is who answers, in errors.
    """

    argv: Sequence[str]
    preamble: bytes = b""
    heartbeat_s: float | None = None
    limit_bytes: int | None = None
    was_over_limit: Callable[[], bool] = lambda: True
    explain: Callable[[int, str], N2NError | None] = lambda code, stderr: None
    speaker: str = "the worker"


def worker_arguments(arguments: Sequence[str]) -> list[str]:
    """Return what a Python interpreter is started with to become a worker, once it has read `worker_archive`."""
    return ["-u", "-c", BOOTSTRAP, *arguments]


@cache
def worker_archive() -> bytes:
    """Return a line with a number of bytes, and as many of a zip archive: equal code gives equal bytes.

    Nothing is compressed: boards exist whose Python lacks zlib.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as files:
        for file in sorted(resources.files(worker).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".py"):
                name = file.name if file.name == "__main__.py" else f"n2n_edge_worker/{file.name}"
                files.writestr(zipfile.ZipInfo(name), file.read_bytes())  # dated 1980, as every file in it
    return b"%d\n%s" % (len(archive.getvalue()), archive.getvalue())
