"""One fit over all boards of ncnn's table: what rates a board has that nobody timed, from its core and data sheet.

The rates of a table (a board, its threads, a precision) are its data sheet's, times the exponential of a sum: of each
term, of features of the board by kind of term, of the core, of the board and of the table. All but the first two are
shrunk towards nought, so a core that few boards have is told by what all have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.latency_prediction.boards import chip_of
from benchmarks.latency_prediction.tables import Table, sheet_of
from n2n_edge.calibration.fitting import Jacobian, penalised_fit
from n2n_edge.devices.terms import TERMS
from n2n_edge.latency.data_sheet import data_sheet_rates
from n2n_edge.latency.pooled import FEATURES, GROUPS, features_of, group_of

__all__ = [
    "UNUSUAL",
    "Pool",
    "core_is_shared",
    "errors_of",
    "fit_pool",
    "kind_of",
    "left_out",
    "pool_document",
    "pools",
]

Floats = NDArray[np.float64]

SPREAD = {"term": 1.0, "feature": 0.5, "core": 0.35, "core_term": 0.25, "board": 0.25, "table": 0.1}
"""Standard deviations, as logarithms, of what is shrunk; of a network's own error it is `NOISE`."""
NOISE = 0.15

ALL_FEATURES = (*FEATURES, "older")
"""`older` is 1 for rows of ncnn before it had a vision transformer: later versions are faster, and count where nobody
timed."""

UNUSUAL = {("phytium-ft-2000-4", 4), ("radxa-orion-o6", 12)}
"""Devices and threads that are left out of the pool: four or twelve threads were slower there than one."""

_ROUNDS = 8


def kind_of(table: Table) -> str:
    """Return which pool a table belongs to: by precision on CPUs, one for GPUs."""
    return "gpu" if "Vulkan" in table.runtime else table.precision


@dataclass(frozen=True)
class Pool:
    """Fitted corrections, as logarithms: of terms, of features by group `(groups, features)`, of cores `(terms,)`."""

    terms: Floats
    features: Floats
    cores: dict[str, Floats]
    boards: dict[str, float] = field(default_factory=dict)

    def rates(self, table: Table) -> Floats:
        """Return the rates of a table's device as if nothing on it had been timed."""
        profile = sheet_of(table.device)
        groups = [GROUPS.index(group_of(term)) for term in TERMS]
        by_feature = (self.features @ _features(table))[groups]
        core = self.cores.get(profile.core or "", np.zeros(len(TERMS)))
        return _sheet(table) * np.exp(self.terms + by_feature + core)


def fit_pool(tables: Sequence[Table], spread: dict[str, float] | None = None) -> Pool:
    """Fit the pool to tables of one kind: damped Gauss-Newton steps, outliers by their size (Huber 1964)."""
    spread = {**SPREAD, **(spread or {})}
    boards = sorted({table.device for table in tables})
    cores = sorted({sheet_of(board).core or "" for board in boards})
    count, groups = len(TERMS), len(GROUPS)
    starts = np.cumsum([0, count, groups * len(ALL_FEATURES), len(cores) * groups, len(cores) * count, len(boards)])
    size = int(starts[-1]) + len(tables)
    in_group = np.array([GROUPS.index(group_of(term)) for term in TERMS])
    deviations = np.concatenate(
        [
            np.full(count, spread["term"]),
            np.full(groups * len(ALL_FEATURES), spread["feature"]),
            np.full(len(cores) * groups, spread["core"]),
            np.full(len(cores) * count, spread["core_term"]),
            np.full(len(boards), spread["board"]),
            np.full(len(tables), spread["table"]),
        ]
    )
    penalty = (NOISE / deviations) ** 2
    blocks, designs, measured = [], [], []
    for index, table in enumerate(tables):
        profile = sheet_of(table.device)
        design = np.zeros((count, size))
        design[np.arange(count), np.arange(count)] = 1
        values = _features(table)
        for place in range(len(ALL_FEATURES)):
            design[np.arange(count), starts[1] + in_group * len(ALL_FEATURES) + place] = values[place]
        core = cores.index(profile.core or "")
        design[np.arange(count), starts[2] + core * groups + in_group] = 1
        design[np.arange(count), starts[3] + core * count + np.arange(count)] = 1
        design[:, starts[4] + boards.index(table.device)] = 1
        design[:, starts[5] + index] = 1
        designs.append(design)
        blocks.append(np.stack([row.terms for row in table.rows]) * _sheet(table))
        measured.append(np.log([row.value for row in table.rows]))

    def residuals_at(at: Floats) -> tuple[Floats, Jacobian]:
        found, shares = [], []
        for terms, design, logs in zip(blocks, designs, measured, strict=True):
            parts = terms * np.exp(design @ at)
            total = parts.sum(axis=1)
            found.append(np.log(total) - logs)
            shares.append(parts / total[:, None])
        return (
            np.concatenate(found),
            lambda: np.concatenate([share @ design for share, design in zip(shares, designs, strict=True)]),
        )

    at, _ = penalised_fit(
        residuals_at, np.zeros(size), penalty, typical=NOISE, rounds=_ROUNDS, tries=6, growth=8.0, tolerance=1e-3
    )
    by_core = {
        core: at[starts[2] + index * groups + in_group] + at[starts[3] + index * count :][:count]
        for index, core in enumerate(cores)
    }
    return Pool(
        at[:count],
        at[starts[1] : starts[2]].reshape(groups, len(ALL_FEATURES)),
        by_core,
        {board: float(at[starts[4] + index]) for index, board in enumerate(boards)},
    )


def left_out(tables: Sequence[Table], spread: dict[str, float] | None = None) -> list[Pool]:
    """Return for each table the fit without all boards of its chip."""
    found: dict[str, Pool] = {}
    for chip in dict.fromkeys(chip_of(table.device) for table in tables):
        found[chip] = fit_pool([table for table in tables if chip_of(table.device) != chip], spread)
    return [found[chip_of(table.device)] for table in tables]


def errors_of(pool: Pool, table: Table) -> Floats:
    """Return predicted over measured, as logarithms, of a table's models."""
    terms = np.stack([row.terms for row in table.rows])
    errors: Floats = np.log(terms @ pool.rates(table)) - np.log([row.value for row in table.rows])
    return errors


def core_is_shared(tables: Sequence[Table]) -> list[bool]:
    """Tell of each table whether boards with another chip have its core, too."""
    chips: dict[str, set[str]] = {}
    for table in tables:
        chips.setdefault(sheet_of(table.device).core or "", set()).add(chip_of(table.device))
    return [len(chips[sheet_of(table.device).core or ""]) > 1 for table in tables]


def pools(tables: Sequence[Table]) -> dict[str, list[Table]]:
    """Return the tables that are pooled, by kind."""
    found: dict[str, list[Table]] = {}
    for table in tables:
        usual = (table.device, table.threads) not in UNUSUAL
        if table.quantity == "latency" and table.runtime.startswith("ncnn") and usual:
            found.setdefault(kind_of(table), []).append(table)
    return found


def pool_document(tables: Sequence[Table], errors: Sequence[Floats], source: str) -> dict[str, object]:
    """Return a pool as `pool.json` holds it; `errors` are those of boards left out.

    The interval is that of boards whose core others have, or of boards whose core no other has.
    """
    pool = fit_pool(tables)
    shared = core_is_shared(tables)
    known = np.concatenate([each for each, common in zip(errors, shared, strict=True) if common])
    unknown = np.concatenate([each for each, common in zip(errors, shared, strict=True) if not common] or [known * 1.5])
    rows = [row for table in tables for row in table.rows]
    return {
        "terms": [round(value, 3) for value in pool.terms],
        "features": [[round(value, 3) for value in row] for row in pool.features[:, : len(FEATURES)]],
        "cores": {core: [round(value, 3) for value in each] for core, each in pool.cores.items() if core},
        "core_known": _evidence(known),
        "core_unknown": _evidence(unknown),
        "boards": len({table.device for table in tables}),
        "models": len(rows),
        "macs": [min(row.macs for row in rows), max(row.macs for row in rows)],
        "input_pixels": [min(row.pixels for row in rows), max(row.pixels for row in rows)],
        "source": source,
    }


def _evidence(errors: Floats) -> dict[str, float]:
    off = np.abs(np.exp(errors) - 1)
    low, high = np.quantile(-errors, [0.05, 0.95])  # measured over predicted
    return {
        "median_error": round(float(np.median(off)), 3),
        "p90_error": round(float(np.quantile(off, 0.9)), 3),
        "low_ratio": round(float(np.exp(min(low, -0.01))), 3),
        "high_ratio": round(float(np.exp(max(high, 0.01))), 3),
    }


def _features(table: Table) -> Floats:
    older = all(row.model != "vision_transformer" for row in table.rows) and kind_of(table) in ("fp32", "fp16")
    return np.append(features_of(sheet_of(table.device), table.threads), float(older))


def _sheet(table: Table) -> Floats:
    precision = "fp32" if kind_of(table) == "gpu" else table.precision
    rates = data_sheet_rates(sheet_of(table.device), table.threads, precision)  # type: ignore[arg-type]
    return np.array([rates[term] for term in TERMS])
