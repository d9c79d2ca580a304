"""Holding models against what is asked of them: the file first, then scores, then what has to be timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from n2n_edge.errors import InputError, N2NError, UnsuitableEnvironmentError, setting
from n2n_edge.gating.check import Check, Gated
from n2n_edge.gating.made_for import refuse_different, runtime_warnings
from n2n_edge.gating.operators import check_operators
from n2n_edge.gating.regression import compare as compare_costs
from n2n_edge.gating.regression import regression_asked
from n2n_edge.gating.settings import GateSettings
from n2n_edge.gating.unanswered import Unanswered
from n2n_edge.graph.bind import bound_where_named
from n2n_edge.graph.input_shape import at_one_size
from n2n_edge.graph.load import load_model
from n2n_edge.graph.shapes import batch_of
from n2n_edge.latency.file_figures import inferred_figures, model_figures, predicted_latency
from n2n_edge.measure.runtimes import ConversionError
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import COSTS
from n2n_edge.metrics.figures import MB, Figure
from n2n_edge.metrics.notices import Notice
from n2n_edge.metrics.precisions import share_in_words
from n2n_edge.metrics.runtimes import ONNXRUNTIME
from n2n_edge.metrics.scores import drop
from n2n_edge.metrics.verdict import verdicts_on
from n2n_edge.reading import is_file

if TYPE_CHECKING:
    from n2n_edge.devices.profile import Profile
    from n2n_edge.gating.timing import Timed

__all__ = ["GateJob", "ScoreOf", "Scores", "gate_models"]


@dataclass(frozen=True)
class GateJob:
    """One model and what is asked of it."""

    model: Path
    settings: GateSettings


@dataclass(frozen=True)
class Scores:
    """What test images say: `metric` is that of the model's task, or fidelity to the baseline without labels."""

    metric: str
    model: Figure
    baseline: Figure | None
    notes: tuple[Notice, ...] = ()
    """What was assumed."""
    warnings: tuple[Notice, ...] = ()
    """What is doubtful about the images."""


_FROM_SHAPES = ("macs", "memory_bound_mb")
_UNTOLD = "shapes of the model can't be inferred, and --static runs nothing: leave it out to run the model once"

ScoreOf = Callable[[Path, GateSettings], Scores]
"""Evaluates a model, and its baseline if there is one, on the test images of the settings' data."""


def gate_models(
    jobs: Sequence[GateJob], score_of: ScoreOf, watch: Callable[[str], None] = lambda stage: None
) -> tuple[Gated, ...]:
    """Hold models against their settings. `watch` is told what is being done.

    All that follows from the files is found out, and wrong usage refused, before anything is run. What can't be found
    out here, since a model can't be run or a board isn't reached, becomes an inconclusive check.

    Raises:
        InputError: a file that isn't a model, or settings that contradict each other or ask nothing.
    """
    begun = [_Gate(job, watch) for job in jobs]
    for gate in begun:
        gate.check_file()
    for gate in begun:
        gate.check_score(score_of)
        gate.check_latency()
    return tuple(gate.found() for gate in begun)


class _Gate:
    """The gate of one model under way."""

    def __init__(self, job: GateJob, watch: Callable[[str], None]) -> None:
        self._model, self._settings, self._watch = job.model, job.settings, watch
        self._budgets = job.settings.budgets
        self._allowed = job.settings.regressions
        self._operators = job.settings.operators
        self._profile = _profile(job.settings)
        self._predicting = job.settings.predicts
        self._checks: list[Check] = []
        self._notes: list[Notice] = []
        self._warnings: list[Notice] = []
        self._input_shape: tuple[int, ...] | None = None
        if not is_file(job.model):
            load_model(job.model)  # says what is wrong with it
        _refuse_contradictions(job, self._budgets, self._profile)

    def found(self) -> Gated:
        """Return what was found."""
        notes, warnings = (tuple(dict.fromkeys(lines)) for lines in (self._notes, self._warnings))
        return Gated(self._model, tuple(self._checks), warnings, self._settings.baseline, notes)

    def check_file(self) -> None:
        """Check all that follows from the file: size, params, MACs, memory bound, operators, a predicted latency."""
        model, baseline = self._sized()
        self._check_runtime(model, baseline)
        figures_of = model_figures if self._needs_shapes and not self._settings.static else inferred_figures
        figures = figures_of(model, self._model)
        if batch_of(model) > 1:
            text = f"the file takes {batch_of(model)} images at a time: costs are for all of them"
            self._warnings.append(Notice("batch", text))
        if "integer_macs" in figures:
            share = share_in_words(figures["integer_macs"].value, figures["macs"].value)
            self._notes.append(Notice("integer-macs", f"MACs: {share}"))
        untold = [cost for cost in _FROM_SHAPES if cost not in figures]
        self._checks += [
            Unanswered(budget.cost, _asked(budget), _UNTOLD) for budget in self._budgets if budget.cost in untold
        ]
        static = [budget for budget in self._budgets if budget.cost in figures]
        if self._limit is not None and self._predicting and untold:
            self._checks.append(Unanswered("latency_ms", _asked(self._limit), _UNTOLD))
        elif self._limit is not None and self._predicting:
            assert self._profile is not None
            latency = predicted_latency(model, self._profile, self._settings.threads)
            figures["latency_ms"] = latency.figure
            self._notes += latency.notes
            self._warnings += latency.warnings
            static.append(self._limit)
        device = None if self._profile is None else self._profile.name
        self._checks += verdicts_on(figures, static, accept_expected=self._settings.accept_expected, device=device)
        if self._settings.baseline is not None and baseline is not None:
            known = figures_of(baseline, self._settings.baseline)
            self._checks += compare_costs(figures, known, self._allowed.of)
            self._checks += [
                Unanswered(cost, regression_asked(cost, self._allowed.of(cost)), _UNTOLD)
                for cost in _FROM_SHAPES
                if cost in untold or cost not in known
            ]
        if self._operators:
            self._checks.append(check_operators(model, self._operators))

    def _check_runtime(self, model: ir.Model, baseline: ir.Model | None) -> None:
        """Hold the runtime that latencies are of against those that the files were made for."""
        settings = self._settings
        timed = [] if baseline is None or settings.static else [baseline]
        if timed and settings.baseline is not None and settings.runtime is None:
            refuse_different([self._model, settings.baseline], [model, *timed])
        if timed or self._limit is not None:
            used = self._profile.runtime if self._profile is not None else settings.runtime or ONNXRUNTIME
            self._warnings += runtime_warnings(model, used)

    def _sized(self) -> tuple[ir.Model, ir.Model | None]:
        """Return the model and its baseline at the sizes of input that they are counted and timed at."""
        paths = [path for path in (self._model, self._settings.baseline) if path is not None]
        named = [(path.name if len({one.name for one in paths}) == len(paths) else str(path), path) for path in paths]
        models = bound_where_named([load_model(path) for path in paths], self._settings.bind)
        sized = at_one_size(
            [(name, model) for (name, _), model in zip(named, models, strict=True)], self._settings.input_shape
        )
        self._input_shape = sized.input_shape
        self._warnings += [Notice("input-size-assumed", text) for text in sized.notes]
        return sized.models[0], sized.models[1] if len(paths) > 1 else None

    def check_score(self, score_of: ScoreOf) -> None:
        """Check what test images say; a drop in points takes the place of a relative one that wasn't named."""
        settings = self._settings
        if settings.data is None:
            return
        budgets = [budget for budget in self._budgets if COSTS[budget.cost].quality]
        asked = {_asked(budget): budget.cost for budget in budgets}
        dropping = any(budget.cost == "drop" for budget in budgets)
        relative = settings.baseline is not None and ("score" in self._allowed.by_cost or not dropping)
        if relative:
            asked[regression_asked("score", self._allowed.of("score"))] = "score"
        if settings.static:
            self._leave_out(list(asked))
            return
        self._watch(f"evaluating {self._model.name} on the test images")
        try:
            found = score_of(self._model, settings)
        except N2NError as error:
            for one, cost in asked.items():
                self._unanswered(cost, [one], error)
            return
        reached = {"score": found.model, "drop": drop(found.model, found.baseline)}
        self._checks += verdicts_on(reached, budgets, metric=found.metric)
        if found.baseline is not None and relative:
            theirs = {"score": found.baseline}
            self._checks += compare_costs({"score": found.model}, theirs, self._allowed.of, found.metric)
        if found.metric == "fidelity":
            if not budgets:
                raise InputError(
                    f"‹data› {settings.data}: without labels there is no score to compare; give ‹min_score› for the "
                    "least fidelity to the baseline, or images with labels"
                )
            options = " and ".join(budget.option for budget in budgets)
            held = "hold" if len(budgets) > 1 else "holds"
            text = f"without labels {options} {held} for fidelity to the baseline, not for the task's metric"
            self._warnings.append(Notice("fidelity", text))
        self._notes += found.notes
        self._warnings += found.warnings

    def check_latency(self) -> None:
        """Check what has to be timed: the latency on a named target, and its ratio to the baseline's."""
        limit = None if self._predicting else self._limit
        baseline = self._settings.baseline
        allowed = self._allowed.of("latency_ms")
        asked = [] if limit is None else [_asked(limit)]
        if baseline is not None:
            asked.append(regression_asked("latency_ms", allowed))
        if self._settings.static:
            self._leave_out(asked)
            return
        if not asked:
            return
        from n2n_edge.gating.timing import time_models

        try:
            settings = self._settings.model_copy(update={"input_shape": self._input_shape})
            most_ms = None if limit is None else limit.limit
            timed = time_models(self._model, settings, self._profile, most_ms, allowed, self._watch)
        except N2NError as error:
            self._unanswered("latency_ms", asked, error)
            return
        if limit is not None and timed.latency is None:
            reason = f"{timed.too_few_rounds}: allow more (--max-time)"
            self._checks.append(Unanswered("latency_ms", _asked(limit), reason))
        elif limit is not None and timed.latency is not None:
            self._checks += verdicts_on({"latency_ms": timed.latency}, [limit], device=timed.target)
        if timed.ratio is not None:
            self._checks.append(timed.ratio)
        self._warn(timed)

    @property
    def _needs_shapes(self) -> bool:
        """Tell whether anything is asked that a model may have to be run for; size, params and operators aren't."""
        from_shapes = any(budget.cost in _FROM_SHAPES for budget in self._budgets)
        return from_shapes or self._predicting or self._settings.baseline is not None

    @property
    def _limit(self) -> Budget | None:
        return next((budget for budget in self._budgets if budget.cost == "latency_ms"), None)

    def _unanswered(self, cost: str, asked: Sequence[str], error: N2NError) -> None:
        """Note what this environment, or the runtime, can't tell; any other error ends the gate."""
        if error.exit_code != UnsuitableEnvironmentError.exit_code and not isinstance(error, ConversionError):
            raise error
        self._checks += [Unanswered(cost, one, " ".join(error.on_command_line().split())) for one in asked]

    def _leave_out(self, asked: Sequence[str]) -> None:
        text = "not checked, --static leaves out what has to be run"
        self._warnings += [Notice("static", f"{one}: {text}") for one in asked]

    def _warn(self, timed: "Timed") -> None:
        self._warnings += timed.warnings
        if self._predicting and self._settings.baseline is not None and self._profile is not None:
            text = f"the ratio to the baseline was timed on this host, not on {self._profile.name}"
            self._warnings.append(Notice("ratio-on-host", text))
        memory = next((budget for budget in self._budgets if budget.cost == "memory_bound_mb"), None)
        grown_mb = timed.rss_growth_bytes / MB if timed.rss_growth_bytes is not None else 0.0
        if memory is not None and grown_mb > memory.limit:
            text = (
                f"{memory.option} {memory.limit:g} holds for the bound; the process grew by {grown_mb:.1f} MB when it "
                "ran, the runtime's own code and buffers included"
            )
            self._warnings.append(Notice("memory-grew", text))


def _profile(settings: GateSettings) -> "Profile | None":
    if settings.device is None:
        return None
    from n2n_edge.devices.registry import load_profile

    return load_profile(settings.device).under(settings.runtime)


def _asked(budget: Budget) -> str:
    return f"{budget.option} {budget.limit:.10g}"


def _refuse_contradictions(job: GateJob, budgets: Sequence[Budget], profile: "Profile | None") -> None:
    settings, limited = job.settings, {budget.cost: budget for budget in budgets}
    if settings.asks_nothing:
        left = "‹static› leaves nothing to judge by" if settings.static and budgets else "nothing to judge by"
        raise InputError(
            f"{job.model}: {left}; give a budget such as ‹max_mb› 0.5, or ‹baseline› MODEL, or write a budget file "
            "with --init"
        )
    if "latency_ms" in limited:
        limit = limited["latency_ms"]
        if settings.device is None and settings.target is None:
            raise InputError(
                f"‹max_latency_ms› {limit.limit:g}: on which device? give ‹device› (cpu for this host), or ‹target›"
            )
        if settings.target == "host-limited":
            raise InputError(
                f"‹max_latency_ms› {limit.limit:g}: this host within a board's limits has another processor; give "
                "‹target› ssh://..., or ‹device› alone for a prediction"
            )
        if settings.target == "host" and profile is not None and not profile.is_host:
            raise InputError(
                f"‹max_latency_ms› {limit.limit:g}: ‹target› host is this machine, not {settings.device}; give "
                "‹target› ssh://..., ‹device› alone for a prediction, or ‹device› cpu"
            )
    if settings.providers is not None and settings.runtime not in (None, ONNXRUNTIME):
        raise InputError(
            f"‹providers› {settings.providers}: they are ONNX Runtime's own; leave out ‹runtime› {settings.runtime}, "
            "or them"
        )
    quality = [budget for budget in budgets if COSTS[budget.cost].quality]
    for budget in quality:
        if settings.data is None:
            raise InputError(f"{setting(budget.option)} {budget.limit:g}: on which images? give ‹data›")
    if "drop" in limited and settings.baseline is None:
        raise InputError(f"‹max_drop› {limited['drop'].limit:g}: below what? give ‹baseline› MODEL")
    if settings.data is not None and not quality and settings.baseline is None:
        raise InputError(f"‹data› {settings.data}: to judge what? give ‹min_score›, or ‹baseline› MODEL")
