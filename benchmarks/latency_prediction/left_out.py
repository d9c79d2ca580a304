"""How well boards are predicted that nobody timed: every board, and all with its chip, left out of the pool once.

``python -m benchmarks.latency_prediction.left_out DATA`` from the repository's root writes ``left_out.json`` and
``left_out.md`` and, with ``--write``, the pool that `predict` uses, ``n2n_edge/latency/pool.json``. Some minutes.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.latency_prediction.boards import chip_of
from benchmarks.latency_prediction.pool import Pool, core_is_shared, errors_of, left_out, pool_document, pools
from benchmarks.latency_prediction.tables import NCNN_SOURCE, Table, read_ncnn
from n2n_edge.calibration.timings import posterior, prior_deviations

HERE = Path(__file__).parent
POOL = HERE.parent.parent / "n2n_edge" / "latency" / "pool.json"

TIMINGS = (0, 3, 10)
DRAWS = 5
"""How often the networks that are timed on a board are drawn."""

Floats = NDArray[np.float64]


def main() -> None:
    """Leave out, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", action="store_true", help="put the pool into the package")
    options = parser.parse_args()
    tables = read_ncnn(options.data / "ncnn_all.csv")
    terms = {row.model: row.terms for table in tables for row in table.rows if table.runtime == "ncnn"}
    reference = np.stack(list(terms.values()))
    document: dict[str, object] = {"reference": [[float(f"{value:.3g}") for value in each] for each in reference]}
    judged: dict[str, dict[str, dict[str, float]]] = {}
    for kind, members in pools(tables).items():
        fits = left_out(members)
        errors = [errors_of(pool, table) for pool, table in zip(fits, members, strict=True)]
        document[kind] = pool_document(members, errors, NCNN_SOURCE)
        for index, table in enumerate(members):
            key = f"{table.device}, {table.threads}, {kind}"
            low, high = _bounds_without(index, members, errors)
            judged[key] = {"0": _figures(errors[index], low, high)}
            for count in TIMINGS[1:]:
                if len(table.rows) > count + 3:
                    judged[key][str(count)] = _timed(table, fits[index], count, low, high, reference)
        print(kind, _summary(judged, kind), flush=True)
    (HERE / "left_out.json").write_text(json.dumps(judged, indent=1) + "\n")
    (HERE / "left_out.md").write_text(_page(judged))
    if options.write:
        POOL.write_text(json.dumps(document) + "\n")


def _bounds_without(index: int, tables: Sequence[Table], errors: Sequence[Floats]) -> tuple[float, float]:
    """Return the interval, as logarithms, that the errors of all other chips give a table's."""
    shared, chip = core_is_shared(tables), chip_of(tables[index].device)
    others = [
        each
        for table, each, common in zip(tables, errors, shared, strict=True)
        if chip_of(table.device) != chip and common == shared[index]
    ] or [each for table, each in zip(tables, errors, strict=True) if chip_of(table.device) != chip]
    low, high = np.quantile(-np.concatenate(others), [0.05, 0.95])
    return float(low), float(high)


def _timed(table: Table, pool: Pool, count: int, low: float, high: float, reference: Floats) -> dict[str, float]:
    """Return how well the other networks are predicted once `count` of a board's are timed, drawn several times."""
    terms = np.stack([row.terms for row in table.rows])
    times = np.array([row.value for row in table.rows])
    unit = "gpu" if "Vulkan" in table.runtime else "cpu"
    network, common = prior_deviations(unit, (high - low) / 2)
    errors, widths = [], []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(times))
        known, rest = order[:count], order[count:]
        found = posterior(terms[known], times[known], pool.rates(table), reference, network=network, common=common)
        errors.append(np.log(terms[rest] @ found.rates) - np.log(times[rest]))
        widths.append(np.full(len(rest), 1.645 * found.deviation))
    off, width = np.concatenate(errors), np.concatenate(widths)
    return {
        **_figures(off, 0, 0),
        "coverage": float(np.mean(np.abs(off) <= width)),
        "high": float(np.exp(width.mean())),
    }


def _figures(errors: Floats, low: float, high: float) -> dict[str, float]:
    off = np.abs(np.exp(errors) - 1)
    return {
        "networks": len(errors),
        "median_error": float(np.median(off)),
        "factor": float(np.exp(-np.median(errors))),
        "coverage": float(np.mean((-errors >= low) & (-errors <= high))),
        "high": float(np.exp(high)),
    }


def _summary(judged: dict[str, dict[str, dict[str, float]]], kind: str) -> str:
    parts = []
    for count in map(str, TIMINGS):
        rows = [ways[count] for key, ways in judged.items() if key.endswith(f", {kind}") and count in ways]
        if rows:
            middle = float(np.median([row["median_error"] for row in rows]))
            near = float(np.mean([abs(np.log(row["factor"])) < np.log(2) for row in rows]))
            held = float(np.average([row["coverage"] for row in rows], weights=[row["networks"] for row in rows]))
            wide = float(np.median([row["high"] for row in rows]))
            parts.append(f"{middle:.1%}, {near:.0%} within 2, {held:.0%} held, {wide:.2f}")
    return " | ".join(parts)


def _page(judged: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [
        "Boards that the fit has not seen, all others with the same chip left out, too: the median over boards of each",
        "",
    ]
    lines[0] += (
        " board's median error, boards whose typical error is within a factor of 2, networks within the interval,"
    )
    lines[1:] = ["the interval's upper bound over the expected value. Timings are of networks drawn five times.", ""]
    head = " | ".join(f"{count} timings" if count else "no timings" for count in TIMINGS)
    lines += [f"| | {head} |", "| --- " * (len(TIMINGS) + 1) + "|"]
    kinds = sorted({key.rsplit(", ", 1)[1] for key in judged})
    lines += [f"| {kind} | {_summary(judged, kind)} |" for kind in kinds]
    lines += ["", f"| device, threads, precision | networks | typical factor | {head} |", "| --- " * 6 + "|"]
    for key, ways in judged.items():
        cells = [f"{ways[str(count)]['median_error']:.1%}" if str(count) in ways else "" for count in TIMINGS]
        lines.append(f"| {key} | {ways['0']['networks']} | {ways['0']['factor']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
