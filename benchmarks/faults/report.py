"""Write results.md from kills.json and fuzz.json."""

import json
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    kills, fuzz = (json.loads((HERE / f"{name}.json").read_text()) for name in ("kills", "fuzz"))
    lines = [
        "# Results",
        "",
        "## Kills",
        "",
        f"{kills['kills']} kills of {kills['runs']} runs: {kills['lost']} lost, {kills['same_student']} ended with the "
        f"same student to the byte, {kills['same_winner']} with the same winner, {kills['same_trials']} with the same "
        "trials.",
        "",
        "| phase | kills |",
        "| --- | --- |",
        *(f"| {phase} | {row['kills']} |" for phase, row in kills["phases"].items()),
        "",
        "## Mutated inputs",
        "",
        f"{fuzz['inputs']:,} inputs. What was found is given as it was before it was mended.",
        "",
        "| kind | inputs | read | refused | unforeseen | faults | longest answer, s | most memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind, row in fuzz["kinds"].items():
        counts = dict(row["outcomes"])
        read, refused, odd = (counts.pop(name, 0) for name in ("accepted", "refused", "unforeseen"))
        lines.append(
            f"| {kind} | {row['inputs']:,} | {read:,} | {refused:,} | {odd} | {sum(counts.values())} | "
            f"{row['longest_s']:.2f} | {row['largest_mb']:,} |"
        )
    lines += ["", "| kind | what was found | times | where |", "| --- | --- | --- | --- |"]
    for kind, row in fuzz["kinds"].items():
        for found in row["found"]:
            text = " ".join(found["text"].split())[:110].replace("|", "/")
            place = " ".join(found["place"].replace('"', "").replace("|", "/").split())
            lines.append(f"| {kind} | {found['outcome']}: `{text}` | {found['times']} | `{place}` |")
    (HERE / "results.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
