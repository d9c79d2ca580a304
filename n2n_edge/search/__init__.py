"""The search for a student: policies, reward, the two stages, and the journal of a run."""

from n2n_edge.search.attempts import note_crash
from n2n_edge.search.candidate_costs import CandidateCosts
from n2n_edge.search.costing import CostMeter
from n2n_edge.search.driver import Progress, Rung, SearchPlan, SearchResult, search
from n2n_edge.search.evaluator import Evaluator, Judged, Objective
from n2n_edge.search.fitting import fit_widths
from n2n_edge.search.journal import Candidate, Journal
from n2n_edge.search.journal_lock import held

__all__ = [
    "Candidate",
    "CandidateCosts",
    "CostMeter",
    "Evaluator",
    "Journal",
    "Judged",
    "Objective",
    "Progress",
    "Rung",
    "SearchPlan",
    "SearchResult",
    "fit_widths",
    "held",
    "note_crash",
    "search",
]
