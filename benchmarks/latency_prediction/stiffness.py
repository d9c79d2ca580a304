"""How stiffly a fit stays with the data sheet: the one setting that is chosen by leaving networks out.

``python -m benchmarks.latency_prediction.stiffness DATA`` from the repository's root writes ``stiffness.json`` and
``stiffness.md``. Some minutes. The value with the least median over boards, of each board's median error, is taken, for
CPUs with one thread, with more, and for GPUs. Choosing is judged, too: a network's error is that at the value which all
other networks choose.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.latency_prediction.fit import start_of, terms_of, unit_of, values_of
from benchmarks.latency_prediction.tables import Table, read_ncnn
from n2n_edge.calibration.fitting import leave_out

HERE = Path(__file__).parent

TRIED = (0.01, 0.02, 0.04, 0.08, 0.16)

Floats = NDArray[np.float64]


def main() -> None:
    """Fit at each value, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    kinds: dict[str, list[Table]] = {}
    for table in read_ncnn(options.data / "ncnn_all.csv"):
        if table.precision != "int8":
            kinds.setdefault(unit_of(table), []).append(table)
    document = {}
    for kind, tables in kinds.items():
        document[kind] = judged(tables)
        print(kind, document[kind], flush=True)
    (HERE / "stiffness.json").write_text(json.dumps(document, indent=1) + "\n")
    (HERE / "stiffness.md").write_text(_page(document))


def judged(tables: list[Table]) -> dict[str, object]:
    """Return the typical error at each value, the best one, and what is left of that where the choice is judged."""
    networks = sorted({row.model for table in tables for row in table.rows})
    errors = np.full((len(TRIED), len(tables), len(networks)), np.nan)
    for place, table in enumerate(tables):
        columns = [networks.index(row.model) for row in table.rows]
        terms, values, (guess, _) = terms_of(table.rows), values_of(table.rows), start_of(table, {})
        for index, stiffness in enumerate(TRIED):
            errors[index, place, columns] = np.expm1(leave_out(terms, values, guess, stiffness=stiffness))
    off = np.abs(errors)
    by_others = [int(np.argmin(_typical(np.delete(off, place, axis=2)))) for place in range(len(networks))]
    honest = np.stack([off[chosen, :, place] for place, chosen in enumerate(by_others)], axis=1)
    typical = _typical(off)
    return {
        "tables": len(tables),
        "median_error": {str(value): round(float(each), 4) for value, each in zip(TRIED, typical, strict=True)},
        "chosen": TRIED[int(np.argmin(typical))],
        "chosen_by_others": sorted({TRIED[each] for each in by_others}),
        "median_error_by_others": round(float(_typical(honest)), 4),
    }


def _typical(off: Floats) -> Floats:
    """Return the median over tables of each table's median, the last two axes being tables and networks."""
    found: Floats = np.median(np.nanmedian(off, axis=-1), axis=-1)
    return found


def _page(document: dict[str, dict[str, object]]) -> str:
    lines = ["Median over boards of each board's median error, of networks that the fit has not seen.", ""]
    lines += [f"| | tables | {' | '.join(map(str, TRIED))} | chosen by the other networks | error then |"]
    lines.append("| --- " * (len(TRIED) + 4) + "|")
    for kind, found in document.items():
        at = found["median_error"]
        assert isinstance(at, dict)
        cells = [
            f"**{error:.1%}**" if float(value) == found["chosen"] else f"{error:.1%}" for value, error in at.items()
        ]
        others = found["chosen_by_others"]
        assert isinstance(others, list)
        told = " or ".join(map(str, others))
        lines.append(
            f"| {kind} | {found['tables']} | {' | '.join(cells)} | {told} | {found['median_error_by_others']:.1%} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
