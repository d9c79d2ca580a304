"""The table of costs, and all that has to follow it."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

import n2n_edge
from n2n_edge.cli.compress import compress
from n2n_edge.cli.gate import gate
from n2n_edge.errors import InputError
from n2n_edge.gating.settings import GateSettings, parse_regressions
from n2n_edge.graph.costs import Costs
from n2n_edge.latency.file_figures import static_figures
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import COSTS, OBJECTIVES, STATIC_COSTS, with_present_names
from n2n_edge.report.document import CandidateJson, ModelJson
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.search.trial import TrialCosts

ROWS = tuple(COSTS.values())


@pytest.mark.parametrize("row", ROWS, ids=[row.key for row in ROWS])
def test_every_cost_can_be_limited_in_runs_and_gates(row):
    assert row.field in GateSettings.model_fields
    assert row.field in {field.name for field in fields(CompressSettings)}
    assert row.field in inspect.signature(gate).parameters
    assert row.field in inspect.signature(compress).parameters
    assert GateSettings(**{row.field: 0.5}).budgets == (Budget(row.key, 0.5),)
    if row.key != "drop":  # it is held against the baseline already
        assert parse_regressions([f"{row.key}=1%"]).of(row.key) == 0.01


def test_what_follows_from_the_graph_is_a_figure_in_the_unit_of_its_budget():
    figures = static_figures(Costs(params=2, size_bytes=3_000_000, macs=4, memory_bound_bytes=5_000_000))

    assert {cost: (figure.value, figure.unit) for cost, figure in figures.items()} == {
        "size_mb": (3.0, "MB"), "params": (2, "params"), "macs": (4, "MACs"), "memory_bound_mb": (5.0, "MB"),
    }  # fmt: skip
    assert {figure.provenance for figure in figures.values()} == {"computed"}


def test_candidates_and_documents_hold_every_cost():
    static = {row.key for row in STATIC_COSTS}

    assert set(TrialCosts(1.0, 2, 3, 4.0).as_mapping()) == static
    assert static <= set(ModelJson.__annotations__)
    assert {*static, "latency_ms", "score"} <= set(CandidateJson.__annotations__)
    assert set(OBJECTIVES) == {*static, "latency_ms"}


def test_no_other_module_lists_options_of_budgets():
    options = re.compile("|".join(rf'"{row.option}"' for row in ROWS))
    package = Path(n2n_edge.__file__).parent
    listing = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if len(set(options.findall(path.read_text("utf-8")))) > 2
    }

    assert listing == {"metrics/costs.py"}


def test_a_limit_may_go_by_its_former_name_and_not_by_both():
    assert with_present_names({"min_accuracy": 0.9, "max_mb": 1}) == {"min_score": 0.9, "max_mb": 1}
    assert with_present_names({"min-accuracy": 0.9}) == {"min-score": 0.9}
    assert with_present_names({"min_accuracy": None, "min_score": 0.8}) == {"min_score": 0.8}
    assert GateSettings.model_validate({"min-accuracy": 0.9}) == GateSettings(min_score=0.9)
    with pytest.raises(InputError, match=r"min_accuracy 0\.9: is another name of min_score"):
        with_present_names({"min_accuracy": 0.9, "min_score": 0.8})
