"""One row of the coverage table, in a process of its own: ``row.py ours|peer NAME FILE`` prints one line of JSON."""

import json
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from families import FAMILIES
from zoo import export


def main() -> None:
    """Judge one network by one tool; what goes wrong becomes the reason of the row."""
    tool, name, file = sys.argv[1:]
    path = Path(file)
    family = next((item for item in FAMILIES if item.name == name), None)
    if family is not None and tool == "ours" and not path.exists():
        partial = path.with_suffix(".partial")
        try:
            export(family, partial)
        except Exception as error:
            print(json.dumps({"export": _reason(error)}))
            return
        partial.replace(path)
    try:
        if tool == "ours":
            from judge import judge

            print(json.dumps(judge(path)))
        else:
            from peer import judge_peer

            assert family is not None
            print(json.dumps(judge_peer(family)))
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": _reason(error)}))


def _reason(error: Exception) -> str:
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first}"[:200]


if __name__ == "__main__":
    main()
