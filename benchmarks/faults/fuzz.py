"""Feed mutated files to the program, and write down what became of them, by kind.

python benchmarks/faults/fuzz.py --inputs 10000
"""

import argparse
import contextlib
import json
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults.hunt import Finding, running_hunt, shares  # noqa: E402
from tests.fork_server import running_forks  # noqa: E402

RESULTS = Path(__file__).with_name("fuzz.json")


def place_of(found: Finding) -> str:
    """Return where an error was raised, in this package where it passed through it: what tells faults apart."""
    lines = [line.strip() for line in found.traceback.splitlines() if line.strip().startswith("File ")]
    own = [line for line in lines if "n2n_edge/" in line and "foreign.py" not in line]
    return (own or lines or [""])[-1].rpartition("/n2n_edge/")[2] or found.text[:60]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1_000_000)
    parser.add_argument("--kinds", help="some of them, by comma; the results of the others are kept")
    parser.add_argument("--keep", type=Path, help="folder for the inputs that are faults")
    given = parser.parse_args()
    kinds: dict[str, Any] = {}
    if given.kinds is not None and RESULTS.exists():  # the others stay as they were found
        kinds = json.loads(RESULTS.read_text())["kinds"]
    wanted = None if given.kinds is None else given.kinds.split(",")
    with contextlib.ExitStack() as stack:
        forks = stack.enter_context(running_forks("n2n_edge.cli.app", "torch"))
        hunt = stack.enter_context(running_hunt(Path(stack.enter_context(TemporaryDirectory())), forks))
        for kind, count in shares(given.inputs).items():
            if wanted is not None and kind not in wanted:
                continue
            outcomes: Counter[str] = Counter()
            faults: dict[tuple[str, str], dict[str, Any]] = {}
            longest, largest, start = 0.0, 0, time.monotonic()
            for seed in range(given.seed, given.seed + count):
                found = hunt.read(kind, Random(seed))
                outcomes[found.outcome] += 1
                longest, largest = max(longest, found.seconds), max(largest, found.peak_bytes)
                if found.outcome in ("accepted", "refused"):
                    continue
                place = place_of(found)
                row = faults.setdefault(
                    (found.outcome, place),
                    {"outcome": found.outcome, "place": place, "text": found.text[:200], "seed": seed, "times": 0},
                )
                row["times"] += 1
                if row["times"] == 1 and given.keep is not None:
                    folder = given.keep / f"{kind.replace(' ', '-')}-{seed}"
                    found.keep(folder)
                    (folder / "traceback.txt").write_text(f"{found.outcome}: {found.text}\n{found.traceback}")
            kinds[kind] = {
                "inputs": count,
                "outcomes": dict(outcomes),
                "longest_s": round(longest, 2),
                "largest_mb": round(largest / 1e6),
                "found": list(faults.values()),
            }
            print(f"{kind}: {kinds[kind]}, {time.monotonic() - start:.0f} s", flush=True)
            document = {"seed": given.seed, "inputs": sum(row["inputs"] for row in kinds.values()), "kinds": kinds}
            RESULTS.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
