"""The results as a Markdown table."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["passed", "verdict", "write_table"]

_CHECKS = ("cut", "executor", "full", "dead")
_MACS_TO_FALL = 0.3


def passed(row: Mapping[str, Any]) -> bool:
    """Tell whether a row of ours passes (a) to (d): MACs fall, or named reasons forbid it."""
    right = all(row.get(name) == "ok" for name in _CHECKS) and row.get("size", "ok") == "ok"
    return right and (row["macs_fall"] >= _MACS_TO_FALL or bool(_forbidding(row)))


def _forbidding(row: Mapping[str, Any]) -> dict[str, int]:
    """Return the reasons, with how many channels they hold, that come from ops and not from inputs or outputs."""
    ends = ("graph input", "graph output", "holds a single unit")
    return {reason: count for reason, count in row["reasons"].items() if not reason.startswith(ends)}


def verdict(row: Mapping[str, Any]) -> str:
    """Say in a few words how n2n-edge did."""
    for key, label in (("export", "not exported"), ("error", "failed")):
        if key in row:
            return f"{label}: {row[key]}"
    bad = [f"{name}: {row[name]}" for name in _CHECKS if row.get(name) != "ok"]
    bad += [f"size: {row['size']}"] if row.get("size", "ok") != "ok" else []
    if row["macs_fall"] >= _MACS_TO_FALL:
        return "; ".join(bad) or "passes"
    forbidding = _forbidding(row)
    if not forbidding:
        bad.append(f"MACs fall by {row['macs_fall']:.0%} only")
    verdict = "; ".join(bad) or f"passes, MACs fall by {row['macs_fall']:.0%} only"
    named = ", ".join(f"{reason} ({count} channels)" for reason, count in list(forbidding.items())[:3])
    return verdict + (f"; not touched: {named}" if named else "")


def write_table(rows: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write `rows` of ``results.json`` to `path`."""
    lines = [
        _totals(rows),
        "",
        "| family | kind | nodes | removable layers | shrinkable groups | MACs fall | n2n-edge | torch-pruning |",
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        ours = row.get("ours", {})
        if "nodes" in ours:
            cells = [
                ours["nodes"], f"{ours['removable']} of {ours['layers']}", f"{ours['shrinkable']} of {ours['groups']}",
                f"{ours['macs_fall']:.0%}",
            ]  # fmt: skip
        else:
            cells = ["", "", "", ""]
        said = verdict(ours) if ours else ""
        lines.append("| " + " | ".join(map(_cell, [name, row["kind"], *cells, said, _peer(row)])) + " |")
    path.write_text("\n".join(lines) + "\n")


def peer_passed(row: Mapping[str, Any]) -> bool:
    """Tell whether torch-pruning cut the network and its export agrees."""
    return bool(row.get("shapes") and row.get("onnx_agrees") and row["macs_fall"] >= _MACS_TO_FALL)


def _peer(row: Mapping[str, Any]) -> str:
    peer = row.get("peer")
    if peer is None:
        return ""
    if "error" in peer:
        return f"failed: {peer['error']}"
    if peer_passed(peer):
        return f"passes, MACs fall by {peer['macs_fall']:.0%}"
    if not peer["onnx_agrees"]:
        return f"its ONNX export differs by {peer['onnx_error']:.1e}"
    return f"MACs fall by {peer['macs_fall']:.0%} only"


def _totals(rows: Mapping[str, Mapping[str, Any]]) -> str:
    if all(row["kind"] == "real model" for row in rows.values()):
        tried = [row.get("ours", {}) for row in rows.values()]
        return f"{len(rows)} real models, n2n-edge passes {sum(map(passed, tried_rows(tried)))}."
    parts = []
    for label, kinds in (("classification", {"classification"}), ("all families", None)):
        chosen = [row for row in rows.values() if row["kind"] != "real model" and (not kinds or row["kind"] in kinds)]
        tried = [row["ours"] for row in chosen if row.get("ours") and "export" not in row["ours"]]
        peers = [row["peer"] for row in chosen if row.get("peer") and "export" not in row.get("ours", {})]
        parts.append(
            f"{label}: {len(tried)} exported of {len(chosen)}, n2n-edge passes {sum(map(passed, tried_rows(tried)))}, "
            f"torch-pruning {sum(peer_passed(row) for row in peers)} of {len(peers)}"
        )
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def tried_rows(rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows that got as far as a cut."""
    return [row for row in rows if "macs_fall" in row]


def _cell(text: object) -> str:
    return str(text).replace("|", "/")


if __name__ == "__main__":
    source = Path(sys.argv[1])
    write_table(json.loads(source.read_text()), source.with_suffix(".md"))
