"""Writing a budget file from what a model costs today, plus head-room."""

import json
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from n2n_edge.data.preprocessing_options import PREPROCESSING_OPTIONS
from n2n_edge.errors import InputError, UnsuitableEnvironmentError, setting
from n2n_edge.foreign import encodable
from n2n_edge.gating.budget_file import FILE_NAME, name_below, read_budget_file
from n2n_edge.gating.run import ScoreOf
from n2n_edge.gating.settings import GateSettings, settings_of
from n2n_edge.graph.bind import bound_where_named
from n2n_edge.graph.input_shape import at_one_size
from n2n_edge.graph.load import load_model
from n2n_edge.latency.file_figures import model_figures
from n2n_edge.metrics.costs import COSTS
from n2n_edge.metrics.figures import Figure
from n2n_edge.metrics.formats import format_figure, format_provenance
from n2n_edge.reading import exists
from n2n_edge.writing import toml_text, write_text

__all__ = ["init_budgets"]

_DIGITS = 3
"""Limits are rounded up to so many digits, which people can read."""


_SCORE_ROOM = 0.01
"""What a score may fall below today's; a share of it would be most of what a model has learned."""

_KEPT = (
    "device", "target", "threads", "providers", "runtime", "data", "classes", "task", "decode", "input_shape", "bind",
    *PREPROCESSING_OPTIONS,
)  # fmt: skip
"""Settings that say how a figure was found out, and have to be the same when it is held against its limit."""

_OTHERS = ("max_time",)


def init_budgets(
    path: Path,
    model: Path,
    given: Mapping[str, Any],
    headroom: float,
    score_of: ScoreOf,
    watch: Callable[[str], None] = lambda stage: None,
) -> str:
    """Write a table of budgets for `model` into the file at `path`, after what stands there, and return the table.

    Size, params, MACs and memory bound always get a limit, latency where `given` names a device or target, the
    score where it names data. A limit is today's figure and `headroom` (a fraction) on top, of a latency its upper
    bound's; of the score it is one point below, whatever the head-room.

    Raises:
        InputError: the file is no budget file, has budgets for this model already, or can't be written; the model lies
            outside the file's folder; a setting isn't right.
    """
    from n2n_edge.latency.device_target import HOST_LIMITED

    out_of_place = sorted({name.replace("-", "_") for name in given} - {*_KEPT, *_OTHERS})
    if out_of_place:
        raise InputError(
            f"--init: {setting(out_of_place[0])} has no place here, limits come from today's figures; leave it out"
        )
    settings = settings_of([("command line", given, None)])
    if settings.target == HOST_LIMITED:
        raise InputError(f"--init: ‹target› {HOST_LIMITED} gives no limit in ms; name a board, or ‹device› alone")
    if not 0 <= headroom < 1:
        raise InputError(f"‹headroom› {100 * headroom:g}%: must be at least 0% and below 100%")
    if path.name == "pyproject.toml":
        raise InputError(
            f"{path}: `--init` writes {FILE_NAME} only; copy its table to [tool.n2n-edge.gate] if you like"
        )
    glob = _glob(path, model)
    existing = ""
    if exists(path):
        if glob in read_budget_file(path).models:
            raise InputError(f"{path}: has budgets for '{glob}' already; change them there, or give another ‹config›")
        existing = path.read_bytes().decode("utf-8")
    table = _table(glob, _figures(model, settings, score_of, watch), headroom, _kept(settings, path))
    text = f"{existing.rstrip()}\n\n{table}" if existing else f"{_HEAD}\n{table}"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"{path}: a table for '{glob}' can't be added to it ({error}); write its tables as "
            '[gate.models."GLOB"], or give another ‹config›'
        ) from error
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}); give another ‹config›") from error
    return table


_HEAD = "# Budgets of models, for `n2n-edge gate`; change them as you like. Paths are relative to this file.\n"


def _figures(model: Path, settings: GateSettings, score_of: ScoreOf, watch: Callable[[str], None]) -> dict[str, Figure]:
    from n2n_edge.devices.registry import load_profile
    from n2n_edge.gating.timing import time_models
    from n2n_edge.latency.model import LatencyModel

    (loaded,) = bound_where_named([load_model(model)], settings.bind)
    sized = at_one_size([(model.name, loaded)], settings.input_shape)
    (loaded,) = sized.models
    figures = model_figures(loaded, model)
    profile = load_profile(settings.device).under(settings.runtime) if settings.device is not None else None
    if settings.predicts and profile is not None:
        figures["latency_ms"] = LatencyModel(profile, settings.threads).estimate(loaded).figure
    elif settings.target is not None or profile is not None:
        settings = settings.model_copy(update={"input_shape": sized.input_shape})
        timed = time_models(model, settings, profile, None, 0.0, watch)
        if timed.latency is None:
            raise UnsuitableEnvironmentError(f"{model}: {timed.too_few_rounds}; allow more (‹max_time›)")
        figures["latency_ms"] = timed.latency
    if settings.data is not None:
        figures["score"] = score_of(model, settings).model
    return figures


def _kept(settings: GateSettings, path: Path) -> dict[str, object]:
    """Return the settings that go into the file, paths relative to it."""
    kept = {name: getattr(settings, name) for name in _KEPT if getattr(settings, name) not in (None, ())}
    for name in ("device", "data", "classes"):
        if name in kept and exists(Path(kept[name])) and (name != "device" or kept[name].endswith(".toml")):
            kept[name] = Path(os.path.relpath(kept[name], path.absolute().parent)).as_posix()
    return {name.replace("_", "-"): str(value) if isinstance(value, Path) else value for name, value in kept.items()}


def _glob(path: Path, model: Path) -> str:
    name = name_below(path.parent, model)
    if name is None:
        raise InputError(f"{model}: lies outside the folder of {path}; give a ‹config› above the model")
    return "".join(map(_as_glob, name))


def _as_glob(letter: str) -> str:
    """Return what matches one letter of a name; bytes that aren't UTF-8 can't stand in TOML, but may be left open."""
    if encodable(letter) != letter:
        return "?"
    return f"[{letter}]" if letter in "*?[" else letter


def _literal(name: str, value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if encodable(value) != value:
        raise InputError(f"{setting(name)} {value}: TOML can't hold a name that isn't UTF-8; rename it")
    return toml_text(value)


def _table(glob: str, figures: Mapping[str, Figure], headroom: float, settings: Mapping[str, object]) -> str:
    lines = [f"[gate.models.{toml_text(glob)}]"]
    lines += [f"{name} = {_literal(name, value)}" for name, value in settings.items()]
    for cost, row in COSTS.items():
        if cost not in figures:
            continue
        figure = figures[cost]
        if row.direction == "min":
            limit = _rounded_down(max(figure.value - _SCORE_ROOM, 0.001))
        else:
            # of a measured latency its upper bound too: below that a gate would be inconclusive
            today = figure.value if figure.high is None else figure.high
            limit = _rounded_up(today * (1 + headroom))
        remark = f"{format_figure(figure)} today, {format_provenance(figure.provenance)}"
        lines.append(f"{row.option.removeprefix('--')} = {limit}  # {remark}")
    return "\n".join(lines) + "\n"


def _rounded_up(value: float) -> str:
    if value <= 0:
        return "1"
    unit = 10.0 ** (math.floor(math.log10(value)) - _DIGITS + 1)
    return f"{math.ceil(round(value / unit, 6)) * unit:.10g}"


def _rounded_down(value: float) -> str:
    return f"{math.floor(round(value * 1000, 6)) / 1000:.10g}"
