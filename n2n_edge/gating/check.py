"""One thing that a gate asked of a model, and what a gate found of a model altogether."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from n2n_edge.gating.latency_ratio import LatencyRatio
from n2n_edge.gating.operators import Operators
from n2n_edge.gating.regression import Regression
from n2n_edge.gating.unanswered import Unanswered
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.outcome import EXIT_CODES, Outcome, worst
from n2n_edge.metrics.verdict import Verdict

__all__ = ["Check", "Gated", "exit_code_of", "summary_of"]

Check = Verdict | Regression | LatencyRatio | Operators | Unanswered
"""Each has `cost` (a short name), `asked` (as on the command line), `outcome`, and `reason` (one line)."""


@dataclass(frozen=True)
class Gated:
    """What a gate found of one model; `warnings` decide nothing, `notes` say what figures rest on."""

    model: Path
    checks: tuple[Check, ...]
    warnings: tuple[Notice, ...] = ()
    baseline: Path | None = None
    notes: tuple[Notice, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of all checks."""
        return worst(check.outcome for check in self.checks)


def exit_code_of(found: Sequence[Gated]) -> int:
    """Return 0 if all passed, 1 if any failed, else 3."""
    return EXIT_CODES[worst(one.outcome for one in found)]


def summary_of(found: Sequence[Gated]) -> str:
    """Return one line that counts: ``pass: all 4 met``, ``FAIL: 1 of 4 missed, 1 inconclusive``."""
    if not found:
        return "nothing was judged"
    outcomes = [check.outcome for one in found for check in one.checks]
    missed, open_ones = outcomes.count("fail"), outcomes.count("inconclusive")
    total = f"{len(outcomes)}" + (f" checks of {len(found)} models" if len(found) > 1 else "")
    if missed:
        more = f", {open_ones} inconclusive" if open_ones else ""
        return f"FAIL: {missed} of {total} missed{more}"
    if open_ones:
        return f"inconclusive: {open_ones} of {total} can't be told here"
    return f"pass: all {total} met"
