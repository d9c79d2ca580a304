"""The HTML report and the model card of a run."""

from n2n_edge.report.candidates import find_winner
from n2n_edge.report.comparison import figure_of
from n2n_edge.report.conditions import condition_table
from n2n_edge.report.document import (
    ArchitectureJson,
    BudgetJson,
    CandidateJson,
    ChosenJson,
    ConditionJson,
    ConditionsJson,
    DeviceJson,
    EpochJson,
    GroupJson,
    LayerJson,
    LayerLatencyJson,
    ModelJson,
    ParityJson,
    RunReport,
    SearchJson,
    TrainingJson,
)
from n2n_edge.report.front import pareto_front
from n2n_edge.report.html import render_html, write_html
from n2n_edge.report.model_card import render_model_card, write_model_card

__all__ = [
    "ArchitectureJson",
    "BudgetJson",
    "CandidateJson",
    "ChosenJson",
    "ConditionJson",
    "ConditionsJson",
    "DeviceJson",
    "EpochJson",
    "GroupJson",
    "LayerJson",
    "LayerLatencyJson",
    "ModelJson",
    "ParityJson",
    "RunReport",
    "SearchJson",
    "TrainingJson",
    "condition_table",
    "figure_of",
    "find_winner",
    "pareto_front",
    "render_html",
    "render_model_card",
    "write_html",
    "write_model_card",
]
