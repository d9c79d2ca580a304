"""Kill a small run at random moments of every phase, go on with it, and compare it with the unbroken one.

python benchmarks/faults/kills.py --kills 200
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults.kills import MODULES, PHASES, finished, kills_of_a_run, outcome_of, words  # noqa: E402
from tests.fork_server import running_forks  # noqa: E402

RESULTS = Path(__file__).with_name("kills.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    met: Counter[str] = Counter()
    runs = lost = students = winners = trials = 0
    failures = []
    start = time.monotonic()
    with running_forks(*MODULES) as forks, TemporaryDirectory() as name:
        folder = Path(name)
        asked = words(folder)
        whole = finished(forks, folder / "whole", asked)
        right = outcome_of(folder / "whole")
        number = 0
        while sum(met.values()) < given.kills:
            out = folder / f"run-{number}"
            try:
                kills = kills_of_a_run(forks, out, asked, PHASES, whole, Random(given.seed + number))
                found = outcome_of(out)
            except Exception as error:
                lost += 1
                failures.append({"run": number, "error": f"{type(error).__name__}: {error}"[:2000]})
                kills, found = [], None
            number += 1
            met.update(kill.met for kill in kills if kill.met is not None)
            runs += 1
            if found is not None:
                students += found[0] == right[0]
                winners += found[1] == right[1]
                trials += found[2] == right[2]
            document = {
                "kills": sum(met.values()),
                "runs": runs,
                "lost": lost,
                "same_student": students,
                "same_winner": winners,
                "same_trials": trials,
                "phases": {
                    phase: {"kills": met[phase], "unbroken_s": round(whole.duration_s(phase), 2)} for phase in PHASES
                },
                "seconds": round(time.monotonic() - start),
                "failures": failures,
            }
            RESULTS.write_text(json.dumps(document, indent=1) + "\n")
            print({key: value for key, value in document.items() if key != "phases"}, dict(met), flush=True)
            if lost > 10:
                break


if __name__ == "__main__":
    main()
