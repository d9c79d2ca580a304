"""What a gate is asked, as a budget file or the command line gives it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from n2n_edge.data.preprocessing_options import PREPROCESSING_OPTIONS, check_options, joined_options
from n2n_edge.errors import InputError
from n2n_edge.gating.operators import parse_operators
from n2n_edge.gating.regression import parse_percent
from n2n_edge.graph.input_shape import parse_input_shape, shape_words
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import COSTS, Cost, cost_named, with_present_names
from n2n_edge.metrics.runtimes import runtime_named
from n2n_edge.reading import exists, expanded

__all__ = ["DEFAULT_REGRESSION", "GateSettings", "Regressions", "parse_regressions", "settings_of"]

DEFAULT_REGRESSION = "5%"

_BUDGET_FIELDS: Mapping[str, Cost] = {row.field: row.key for row in COSTS.values()}


@dataclass(frozen=True)
class Regressions:
    """Growth over the baseline that is allowed, as fractions: one for all costs, and others for single ones."""

    default: float
    by_cost: Mapping[str, float]

    def of(self, cost: str) -> float:
        """Return the growth that is allowed of a cost."""
        return self.by_cost.get(cost, self.default)


class GateSettings(BaseModel):
    """The settings of a gate; every field may be absent. In a file names are written with hyphens.

    Limits are in the units of their names, a score is a fraction, a drop in points, percentages are texts such as
    ``5%``. ``inf`` as a limit and ``none`` as a text take back what an earlier table set.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )

    max_mb: float | None = None
    max_params: float | None = None
    max_macs: float | None = None
    max_memory_mb: float | None = None
    max_latency_ms: float | None = None
    min_score: float | None = None
    max_drop: float | None = None
    data: str | None = None
    classes: Path | None = None
    task: str | None = None
    decode: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    pixels: str | None = None
    channels: str | None = None
    resize: str | None = None
    crop_ratio: float | None = None
    interpolation: str | None = None
    antialias: bool | None = None
    pad_color: tuple[int, ...] | None = None
    pad_position: str | None = None
    baseline: Path | None = None
    max_regression: tuple[str, ...] = ()
    allowed_ops: tuple[str, ...] = ()
    input_shape: tuple[int, ...] | None = None
    bind: tuple[str, ...] = ()
    device: str | None = None
    target: str | None = None
    threads: int | None = Field(default=None, ge=1)
    providers: str | None = None
    runtime: str | None = None
    max_time: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    accept_expected: bool = False
    static: bool = False

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: Any) -> Any:
        try:
            return with_present_names(values)
        except InputError as error:
            raise ValueError(str(error)) from error

    @field_validator("max_regression", "allowed_ops", "bind", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        words = (value,) if isinstance(value, str) else value
        return () if words in (("none",), ["none"]) else words

    @field_validator("input_shape", mode="before")
    @classmethod
    def _sizes(cls, value: object) -> object:
        if value is None or value == "none":
            return None
        try:
            return parse_input_shape(shape_words(value) if isinstance(value, list | tuple) else str(value))
        except InputError:
            raise ValueError("not sizes such as 3x224x224, without the batch") from None

    @field_validator(*_BUDGET_FIELDS, mode="before")
    @classmethod
    def _no_limit(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("a limit is a number")
        return None if value == math.inf else value

    @field_validator("mean", "std", "pad_color", mode="before")
    @classmethod
    def _one_for_all_channels(cls, value: object) -> object:
        return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator(
        "baseline", "data", "classes", "task", "decode", "device", "target", "providers", "runtime",
        *PREPROCESSING_OPTIONS,
        mode="before",
    )  # fmt: skip
    @classmethod
    def _nothing(cls, value: object) -> object:
        if isinstance(value, str) and not value.strip():
            raise ValueError("an empty text says nothing; give none to take it back")
        if "\0" in str(value):
            raise ValueError("no name holds a zero byte")
        return None if str(value) == "none" else value

    @field_validator("runtime")
    @classmethod
    def _known_runtime(cls, value: str | None) -> str | None:
        try:
            return None if value is None else runtime_named(value)
        except InputError as error:
            raise ValueError(str(error).removeprefix("‹runtime› ")) from error

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The limits that are set; raises `InputError` for one that can't be."""
        given = ((cost, getattr(self, field)) for field, cost in _BUDGET_FIELDS.items())
        return tuple(Budget(cost, limit) for cost, limit in given if limit is not None)

    @property
    def asks_nothing(self) -> bool:
        """Whether nothing is left to judge by; with `static`, of what follows from the file."""
        limited = {budget.cost for budget in self.budgets}
        if self.static:
            limited -= {row.key for row in COSTS.values() if row.quality}
            limited -= set() if self.predicts else {"latency_ms"}
        return not limited and self.baseline is None and not self.allowed_ops

    @property
    def predicts(self) -> bool:
        """Whether a latency is predicted for `device`, since no target is named to time it on."""
        if self.target is not None or self.device is None:
            return False
        from n2n_edge.devices.registry import load_profile  # takes as long to import as all the rest of a static gate

        return not load_profile(self.device).is_host

    @property
    def regressions(self) -> Regressions:
        """The growth that is allowed; raises `InputError` for what isn't a percentage."""
        return parse_regressions(self.max_regression)

    @property
    def operators(self) -> tuple[str, ...]:
        """The operators that are allowed, none if all are; raises `InputError` for words that aren't operators."""
        return parse_operators(self.allowed_ops) if self.allowed_ops else ()


def parse_regressions(given: Sequence[str], option: str = "‹max_regression›") -> Regressions:
    """Return what words such as ``5%`` and ``accuracy=1%`` allow; of two for the same cost the later one holds.

    Raises:
        InputError: not a percentage, or not a cost.
    """
    default, by_cost = parse_percent(DEFAULT_REGRESSION, option), {}
    for word in given:
        cost, equals, percent = word.rpartition("=")
        if not equals:
            default = parse_percent(word, option)
            continue
        key = cost_named(cost.strip())
        if key not in COSTS or key == "drop":
            costs = ", ".join(each for each in COSTS if each != "drop")
            raise InputError(f"{option} {word}: no such cost; give one of {costs}, as in score=1%")
        by_cost[key] = parse_percent(percent, f"{option} {cost}=")
    return Regressions(default, by_cost)


def settings_of(tables: Sequence[tuple[str, Mapping[str, Any], Path | None]]) -> GateSettings:
    """Return the settings of several tables, a later one's over an earlier one's, growth that is allowed cost by cost.

    Pixels, mean and std are replaced together, and ``resize`` takes back what belongs to another way of resizing.

    A table comes with what it is called in errors and the folder that its paths are relative to (None: the present
    one).

    Raises:
        InputError: a setting that doesn't exist or has the wrong type.
    """
    merged: dict[str, Any] = {}
    for name, table, folder in tables:
        try:
            given = GateSettings.model_validate(dict(table))
        except ValidationError as error:
            raise InputError(_words(name, error)) from error
        check_options(given, None if folder is None else name)
        merged = joined_options(merged, given.model_fields_set)
        for field in given.model_fields_set:
            value = _located(field, getattr(given, field), folder)
            # parts of it speak of single costs: a later table adds to what an earlier one says of the others
            merged[field] = (*merged.get(field, ()), *value) if field == "max_regression" else value
    settings = GateSettings.model_construct(**merged)
    check_options(settings)
    return settings


def _located(field: str, value: Any, folder: Path | None) -> Any:
    """Return a setting with its paths relative to `folder`; words that are no paths, such as a profile's name, stay."""
    if folder is None or value is None:
        return value
    if field in ("baseline", "classes"):
        return folder / expanded(value)
    if field == "data" or (field == "device" and value.endswith(".toml")):
        path = folder / expanded(value)
        return str(path) if exists(path) else value
    if field == "allowed_ops":
        return tuple(f"@{folder / word[1:]}" if word.startswith("@") else word for word in value)
    return value


def _words(name: str, error: ValidationError) -> str:
    first = error.errors()[0]
    setting = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(field.replace("_", "-") for field in GateSettings.model_fields)
        return f"{name}: unknown setting '{setting}'; known are {known}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{name}: {setting} is {first['input']!r}: {message[0].lower()}{message[1:]}"
