"""Fits every device of the public tables, judges the fits on models they haven't seen, and writes the profiles.

``python -m benchmarks.latency_prediction.fit DATA`` from the repository's root, DATA being the folder of the tables,
writes ``results.json`` and ``results.md`` and, with ``--write``, the calibrations of ``profiles/*.toml``. Some minutes.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.latency_prediction.judge import Judgement, judge
from benchmarks.latency_prediction.optional_terms import OPTIONAL, choose, runs_on
from benchmarks.latency_prediction.results_page import results_page
from benchmarks.latency_prediction.tables import PROFILES, Row, Table, read_ncnn, read_tables, sheet_of
from n2n_edge.calibration.calibrate import calibration_of
from n2n_edge.calibration.fitting import fit_rates, leave_out
from n2n_edge.devices.profile import Calibration, Profile
from n2n_edge.devices.profile_file import with_calibrations
from n2n_edge.devices.registry import read_profile
from n2n_edge.devices.terms import TERMS
from n2n_edge.latency.data_sheet import data_sheet_rates
from n2n_edge.latency.model import LatencyModel
from n2n_edge.metrics.runtimes import RuntimeName, runtime_family

HERE = Path(__file__).parent

STIFFNESS = {"CPU, 1 thread": 0.04, "CPU, more threads": 0.02, "GPU": 0.01}
"""Of a fit that starts from a data sheet, by `unit_of`: chosen by leaving networks out (`stiffness.py`)."""

INT8_STIFFNESS = 0.1
"""Of a fit on six or seven int8 models that starts from the same device's fp32 rates."""

BORROWERS = (
    ("raspberry-pi-3b-plus", "raspberry-pi-zero-2-w"), ("raspberry-pi-zero-2-w", "raspberry-pi-3b-plus"),
    ("raspberry-pi-4", "raspberry-pi-3b-plus"), ("raspberry-pi-3b-plus", "raspberry-pi-4"),
    ("raspberry-pi-4", "jetson-orin-nano-cpu"), ("jetson-orin-nano-cpu", "raspberry-pi-4"),
    ("jetson-orin-nano-cpu", "raspberry-pi-5"), ("raspberry-pi-5", "jetson-orin-nano-cpu"),
    ("raspberry-pi-4", "raspberry-pi-5"), ("raspberry-pi-5", "raspberry-pi-4"),
    ("jetson-tx2", "jetson-nano"), ("jetson-nano", "jetson-tx2"), ("jetson-orin-nano", "jetson-tx2"),
    ("jetson-tx2", "jetson-orin-nano"),
)  # fmt: skip
"""Measured devices, each predicted as if it had nothing but the other: (lender, borrower)."""

LITTLE = 1e-6
"""ns, or nJ: what a term that float rates lack starts from in int8, where it isn't used either."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """Rates of a table `(terms,)`, nought for terms that it doesn't use, what they come from, and errors `(models,)`.

    The errors are predicted over measured of models that the fit hasn't seen, as logarithms.
    """

    rates: Floats
    errors: Floats
    terms: Floats
    guess: Floats
    stiffness: float


def main() -> None:
    """Fit, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--write", action="store_true", help="put the calibrations into profiles/")
    parser.add_argument("--ncnn", action="store_true", help="fit ncnn's tables alone, and keep what is known of others")
    options = parser.parse_args()
    start = time.perf_counter()
    tables = read_ncnn(options.data / "ncnn_all.csv") if options.ncnn else read_tables(options.data)
    tables.sort(key=lambda table: table.precision == "int8")
    fits: dict[str, list[tuple[Table, Fitted, Fitted]]] = {}
    rates: dict[bool, dict[str, Floats]] = {False: {}, True: {}}
    for table in tables:
        plain, full = (_fitted(table, rates[each], with_optional=each) for each in (False, True))
        rates[False][table.key], rates[True][table.key] = plain.rates, full.rates
        fits.setdefault(runs_on(table), []).append((table, plain, full))
        print(f"{time.perf_counter() - start:5.0f} s  {table.key}", flush=True)
    choices = {
        kind: choose(
            [table for table, _, _ in members], [plain.errors for _, plain, _ in members],
            [full.errors for _, _, full in members],
        )
        for kind, members in fits.items()
    }  # fmt: skip
    judged: dict[str, dict[str, Judgement]] = {}
    calibrations: dict[str, list[Calibration]] = {}
    for table, plain, full in (each for members in fits.values() for each in members):
        values, choice = values_of(table.rows), choices[runs_on(table)]
        chosen = full if choice.used else plain
        errors = choice.errors(table, plain.errors, full.errors)
        judged[table.key] = {"kernel classes": judge(errors, values, _usual(table)), **_yardsticks(table)}
        families = _families(table.rows)
        if 1 < len(np.unique(families)) < len(table.rows):
            by_family = leave_out(chosen.terms, values, chosen.guess, families, chosen.stiffness)
            judged[table.key]["kernel classes, family left out"] = judge(by_family, values)
        calibration = _calibration(table, chosen.rates, errors)
        if (PROFILES / f"{table.device}.toml").exists() and _ships(table):
            calibrations.setdefault(table.device, []).append(calibration)
    if options.ncnn:
        for name, found in calibrations.items():
            known = read_profile(PROFILES / f"{name}.toml").calibrations
            found += [each for each in known if not each.runtime.startswith("ncnn")]
    profiles = {name: sheet_of(name).model_copy(update={"calibrations": tuple(c)}) for name, c in calibrations.items()}
    if options.write:
        for name, found in calibrations.items():
            path = PROFILES / f"{name}.toml"
            remark = "by benchmarks/latency_prediction/fit.py, which writes everything from here on."
            path.write_text(with_calibrations(path.read_text(), found, remark))
            read_profile(path)
    borrowed = _borrowed(profiles, tables) | _without_int8(profiles, tables)
    told = {kind: str(choice) for kind, choice in choices.items()}
    rows = {key: {way: each.to_json() for way, each in ways.items()} for key, ways in judged.items()}
    if options.ncnn:
        before = json.loads((HERE / "results.json").read_text())
        others = {key: row for key, row in before["tables"].items() if ", ncnn" not in key}
        told |= {kind: each for kind, each in before.get("optional terms", {}).items() if kind not in told}
        judged |= {key: {way: Judgement(**each) for way, each in row.items()} for key, row in others.items()}
        rows |= others
    document = {
        "optional terms": told,
        "tables": rows,
        "borrowed": {key: each.to_json() for key, each in borrowed.items()},
    }
    (HERE / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (HERE / "results.md").write_text(results_page(judged, borrowed, told))


def _fitted(table: Table, known: dict[str, Floats], *, with_optional: bool) -> Fitted:
    """Fit a table, with or without the optional terms, as those `known` were fitted."""
    guess, stiffness = start_of(table, known)
    terms, values = terms_of(table.rows), values_of(table.rows)
    if not with_optional:
        terms[:, OPTIONAL] = 0.0
    rates = fit_rates(terms, values, guess, stiffness).rates
    errors = leave_out(terms, values, guess, _one_by_one(len(values)), stiffness)
    if not with_optional:
        rates[OPTIONAL] = 0.0
    return Fitted(rates, errors, terms, guess, stiffness)


def _ships(table: Table) -> bool:
    """Tell whether a table's rates go into the profile: not those of a second runtime that timed fewer kinds."""
    if table.runtime.startswith("TFLite") or (table.runtime.startswith("HW-NAS") and "pi" in table.device):
        return False
    return table.quantity == "energy" or not table.runtime.startswith("ArmNN") or table.device.endswith("xavier-cpu")


def start_of(table: Table, fitted: dict[str, Floats]) -> tuple[Floats, float]:
    """Return the rates that a fit starts from, and how stiffly it stays with them."""
    profile = sheet_of(table.device)
    wider = [fitted.get(table.key.removesuffix("int8") + precision) for precision in ("fp32", "fp16")]
    known = next((rates for rates in wider if rates is not None), None)
    if table.precision == "int8" and known is not None:
        return np.where(known > 0, known, LITTLE), INT8_STIFFNESS
    rates = data_sheet_rates(
        profile, min(table.threads, profile.cores), "fp32" if table.precision == "int8" else table.precision
    )
    return np.array([rates[term] for term in TERMS]), STIFFNESS[unit_of(table)]


def unit_of(table: Table) -> str:
    """Return which stiffness a table's fit has: that of GPUs, or of CPUs with one or more threads."""
    if sheet_of(table.device).compute_unit == "gpu":
        return "GPU"
    return "CPU, 1 thread" if table.threads == 1 else "CPU, more threads"


def _yardsticks(table: Table) -> dict[str, Judgement]:
    """Return MACs alone, and the three-term roofline (MACs, bytes, kernels), each leaving the model out."""
    values = values_of(table.rows)
    folds = _one_by_one(len(values))
    macs = np.array([[row.macs] for row in table.rows])
    three = np.array([[row.macs, row.moved, row.launches] for row in table.rows])
    start = np.array([0.2, 0.2, 10_000.0])
    return {
        "MACs only": judge(leave_out(macs, values, np.array([0.2]), folds), values),
        "three-term roofline": judge(leave_out(three, values, start, folds, stiffness=1e-3), values),
    }


def _calibration(table: Table, rates: Floats, errors: Floats) -> Calibration:
    return calibration_of(
        rates,
        errors,
        [row.macs for row in table.rows],
        [row.pixels for row in table.rows],
        _usual(table),
        quantity=table.quantity,
        measured_on=table.device,
        runtime=table.runtime,
        threads=table.threads,
        precisions=("fp32", "fp16") if "Vulkan" in table.runtime else (table.precision,),
        source=table.source,
    )


def _borrowed(profiles: dict[str, Profile], tables: Sequence[Table]) -> dict[str, Judgement]:
    """Return how well a device is predicted from another one's rates, scaled by data sheets, as `predict` does it.

    Here the coverage is that of the interval that `predict` gives.
    """
    found = {}
    for lender, borrower in BORROWERS:
        target = profiles[borrower].model_copy(update={"calibrations": (), "relative": lender})
        for table in tables:
            if (table.device, table.quantity) != (borrower, "latency") or not table.runtime.startswith("ncnn"):
                continue
            key = f"{borrower} from {lender}, {table.threads} threads, {table.precision}"
            found[key] = held(target, table, profiles[lender])
    return found


def _without_int8(profiles: dict[str, Profile], tables: Sequence[Table]) -> dict[str, Judgement]:
    """Return how well int8 models are predicted where a device has float timings alone, as `predict` does it."""
    found = {}
    for table in tables:
        profile = profiles.get(table.device)
        if profile is None or (table.quantity, table.precision) != ("latency", "int8") or not _ships(table):
            continue
        kept = tuple(each for each in profile.calibrations if "int8" not in each.precisions)
        floats = profile.model_copy(update={"calibrations": kept})
        found[f"{table.device}, {table.threads} threads, int8 from float"] = held(floats, table)
    return found


def held(profile: Profile, table: Table, relative: Profile | None = None) -> Judgement:
    """Return how well a table's models are predicted by a profile, and how often the interval holds.

    Predictions are for the runtime that the table was measured under, where `--runtime` can name it.
    """
    family = runtime_family(table.runtime)
    asked = profile.under(family) if family in get_args(RuntimeName) else profile
    basis = LatencyModel(asked, table.threads, table.precision, relative=relative).basis()  # type: ignore[arg-type]
    rates = np.array([basis.rates.get(term, 0.0) for term in TERMS])
    values = values_of(table.rows)
    errors = np.log(terms_of(table.rows) @ rates) - np.log(values)
    within = (errors >= -np.log(basis.high_ratio)) & (errors <= -np.log(basis.low_ratio))
    return replace(judge(errors, values), coverage=float(within.mean()))


def terms_of(rows: Sequence[Row]) -> Floats:
    return np.stack([row.terms for row in rows])


def values_of(rows: Sequence[Row]) -> Floats:
    return np.array([row.value for row in rows])


def _one_by_one(count: int) -> NDArray[np.int64]:
    """Return what is left out together: each model by itself, or a fiftieth of a table of more than a thousand."""
    return np.arange(count) % 50 if count > 1000 else np.arange(count)


def _usual(table: Table) -> NDArray[np.bool_]:
    """Tell of which models an interval is: the one network with attention can't be known where it is left out."""
    usual: NDArray[np.bool_] = np.array([row.model != "vision_transformer" for row in table.rows])
    return usual


def _families(rows: Sequence[Row]) -> NDArray[np.int64]:
    names = sorted({row.family for row in rows})
    return np.array([names.index(row.family) for row in rows])


if __name__ == "__main__":
    main()
