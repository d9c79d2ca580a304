"""Collect finished runs into results.json and, per teacher, the best reward so far against trained candidates."""

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WIDTH, HEIGHT, MARGIN = 640, 300, 48
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")


def best_so_far(report: dict[str, Any]) -> list[float]:
    """Return the best reward after each trained candidate, in order; one that comes again was trained once."""
    best: list[float] = []
    seen = set()
    for row in report["search"]["candidates"]:
        facts = (row["params"], row["macs"], row["size_mb"], row.get("score", row.get("accuracy")))
        known = facts in seen
        seen.add(facts)
        if row["trained"] and not known:
            best.append(max(row["reward"], best[-1] if best else float("-inf")))
    return best


def summary(run: Path) -> dict[str, Any]:
    """Return what the table shows of one run."""
    report = without_folders(json.loads((run / "report.json").read_text()))
    return {
        "run": run.name,
        "command": report["command"],
        "policy": report["search"]["policy"],
        "teacher": report["teacher"],
        "student": report["student"],
        "budgets": report["budgets"],
        "parity": report["parity"],
        "removed": report["architecture"]["removed"],
        "training": {"epochs": len(report["training"]["epochs"]), "seconds": report["training"]["seconds"]},
        "candidates_trained": len(best_so_far(report)),
        "candidates_judged": len(report["search"]["candidates"]),
        "best_reward": best_so_far(report),
        "environment": report["environment"],
    }


def without_folders(item: Any) -> Any:
    """Cut absolute paths, also those within a command, to their last part."""
    if isinstance(item, dict):
        return {key: without_folders(value) for key, value in item.items()}
    if isinstance(item, list):
        return [without_folders(value) for value in item]
    if isinstance(item, str):
        return " ".join(Path(word).name if word.startswith("/") else word for word in item.split(" "))
    return item


def curve_svg(runs: list[dict[str, Any]]) -> str:
    """Draw the curves of all runs into one picture."""
    curves = {run["run"]: run["best_reward"] for run in runs}
    low = min(min(curve) for curve in curves.values())
    high = max(max(curve) for curve in curves.values())
    longest = max(len(curve) for curve in curves.values())
    span = (high - low) or 1.0

    def place(index: int, reward: float) -> str:
        x = MARGIN + index / max(1, longest - 1) * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - (reward - low) / span * (HEIGHT - 2 * MARGIN)
        return f"{x:.1f},{y:.1f}"

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}">',
        "<title>Best reward so far against trained candidates</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{MARGIN},{MARGIN} V{HEIGHT - MARGIN} H{WIDTH - MARGIN}" fill="none" stroke="#57606a"/>',
        f'<text x="{MARGIN - 6}" y="{MARGIN + 4}" text-anchor="end">{high:.3f}</text>',
        f'<text x="{MARGIN - 6}" y="{HEIGHT - MARGIN}" text-anchor="end">{low:.3f}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">candidates trained (last: {longest})</text>',
    ]
    for curve, colour in zip(curves.values(), COLOURS, strict=False):
        points = " ".join(place(index, reward) for index, reward in enumerate(curve))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    for index, (name, colour) in enumerate(zip(curves, COLOURS, strict=False)):
        parts.append(f'<text x="{MARGIN + 12}" y="{MARGIN + 14 + 16 * index}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Read the run folders named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    arguments = parser.parse_args()
    runs = [summary(run) for run in arguments.runs]
    (HERE / "results.json").write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    by_teacher: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_teacher.setdefault(Path(run["teacher"]["path"]).stem, []).append(run)
    for teacher_name, group in by_teacher.items():
        (HERE / f"rewards-{teacher_name}.svg").write_text(curve_svg(group))
    for run in runs:
        student, teacher = run["student"], run["teacher"]
        print(
            f"{run['run']}: {teacher['accuracy']['value']:.2%} -> {student['accuracy']['value']:.2%}, "
            f"{teacher['params']['value']:,.0f} -> {student['params']['value']:,.0f} params, "
            f"best reward {run['best_reward'][-1]:.4f} after {len(run['best_reward'])} candidates"
        )


if __name__ == "__main__":
    main()
