"""Process that reads mutated files, one folder a line, within limits; what it can't survive is seen from outside.

Started by `hunt.py`; the one argument is the address of a server of forks, or ''. It answers each line with what came
of it, as JSON.
"""

import contextlib
import faulthandler
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

MOST_BYTES = 2_000_000_000
_ALLOCATED_BYTES = 4_000_000_000
"""An allocation above this fails at once, as on a small machine; what stays below is seen by its pages."""


def peak_bytes() -> int:
    """Return the most memory that this process has held since `reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def outcome_of(kind: str, folder: Path, seed: int) -> dict[str, Any]:
    """Read what lies in a folder; an error that the program documents is a refusal, anything else a fault."""
    from n2n_edge.errors import N2NError
    from n2n_edge.foreign import UnforeseenError
    from tests.faults.subjects import CONTROL, SUBJECTS

    try:
        SUBJECTS.get(kind, CONTROL).read(folder, Random(seed))
    except UnforeseenError as error:
        return {"outcome": "unforeseen", "text": str(error), "traceback": "".join(traceback.format_exception(error))}
    except N2NError as error:
        if "\n" in str(error):
            return {"outcome": "several lines", "text": str(error)}
        return {"outcome": "refused", "text": str(error)}
    except OSError as error:  # the command line makes one line of it where it names the file
        if error.filename is not None:
            return {"outcome": "refused", "text": str(error)}
        return _traceback(error)
    except Exception as error:
        if hasattr(error, "format_message"):  # of typer: wrong usage
            return {"outcome": "refused", "text": str(error)}
        return _traceback(error)
    return {"outcome": "accepted", "text": ""}


def _traceback(error: BaseException) -> dict[str, Any]:
    return {
        "outcome": "traceback",
        "text": f"{type(error).__name__}: {error}"[:300],
        "traceback": "".join(traceback.format_exception(error)),
    }


def main() -> None:
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_ALLOCATED_BYTES, _ALLOCATED_BYTES))
    address = sys.argv[1]
    if address:
        from n2n_edge.graph import child
        from tests.fork_server import Forks

        command = child._command
        child._command = lambda folder: Forks(Path(address)).argv(command(folder))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is printed isn't an answer
    for line in sys.stdin:
        asked = json.loads(line)
        reset_peak()
        start = time.process_time()
        found = outcome_of(asked["kind"], Path(asked["folder"]), asked["seed"])
        found |= {"seconds": time.process_time() - start, "peak_bytes": peak_bytes()}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
