"""What a device is: its cores, memory, runtime and data-sheet peaks, checked strictly."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

__all__ = ["Calibration", "Profile"]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Provider = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]+ExecutionProvider$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

SOURCED = ("memory_mb", "usable_memory_mb", "peak_gflops", "bandwidth_gb_s", "launch_overhead_us", "channel_multiple")
"""Fields whose origin every profile has to state under `sources`."""


class Calibration(BaseModel):
    """How real timings of one device relate to its roofline: measured time over predicted time, per model.

    The three ratios hold for the profile's default threads: `ratio` is the middle, `low_ratio` and `high_ratio` bound
    nine models out of ten. `models` counts the models timed, `source` says when and how.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    ratio: Positive
    low_ratio: Positive
    high_ratio: Positive
    models: int = Field(ge=3)
    runtime: Text
    source: Text

    @model_validator(mode="after")
    def _ratios_in_order(self) -> Self:
        if not self.low_ratio <= self.ratio <= self.high_ratio:
            raise ValueError(f"ratio {self.ratio:g} must lie between low_ratio and high_ratio")
        return self


class Profile(BaseModel):
    """One device, as its TOML file describes it.

    `memory_mb` is all the memory, `usable_memory_mb` what a program may count on (both 10^6 bytes). `peak_gflops` is
    dense fp32 arithmetic of the `compute_unit`: for ``cpu`` over `default_threads`, for ``gpu`` over the whole GPU.
    `launch_overhead_us` is what each operator costs besides arithmetic and memory traffic. Widths are best kept at
    multiples of `channel_multiple`. `sources` maps a field to the document, or the reasoning, its value comes from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    aliases: tuple[Name, ...] = Field(default=(), strict=False)
    description: Text
    is_host: bool = False
    cores: int = Field(ge=1, le=1024)
    default_threads: int = Field(ge=1, le=1024)
    runtime: Literal["onnxruntime"]
    providers: tuple[Provider, ...] = Field(min_length=1, strict=False)
    compute_unit: Literal["cpu", "gpu"]
    memory_mb: Positive = Field(le=10_000_000)
    usable_memory_mb: Positive
    peak_gflops: Positive = Field(le=10_000_000)
    bandwidth_gb_s: Positive = Field(le=100_000)
    launch_overhead_us: float = Field(ge=0, le=100_000, allow_inf_nan=False)
    channel_multiple: int = Field(ge=1, le=256)
    sources: dict[str, Text]
    calibration: Calibration | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        for complaint in _contradictions(self):
            raise ValueError(complaint)
        return self


def _contradictions(profile: Profile) -> list[str]:
    """Return what two fields of a profile say against each other; each text begins with the field to change."""
    found = []
    if profile.default_threads > profile.cores:
        found.append(f"default_threads: {profile.default_threads} is more than cores ({profile.cores})")
    if profile.usable_memory_mb > profile.memory_mb:
        found.append(f"usable_memory_mb: {profile.usable_memory_mb:g} is more than memory_mb ({profile.memory_mb:g})")
    if profile.compute_unit == "gpu" and set(profile.providers) == {"CPUExecutionProvider"}:
        found.append("providers: compute_unit is 'gpu', but only the CPU provider is named")
    if profile.name in profile.aliases:
        found.append(f"aliases: '{profile.name}' is the name itself")
    for field in ("providers", "aliases"):
        values = getattr(profile, field)
        if len(set(values)) < len(values):
            found.append(f"{field}: a value is named twice")
    for field in sorted(set(profile.sources) - set(Profile.model_fields)):
        found.append(f"sources.{field}: there is no field of this name")
    for field in SOURCED:
        if field not in profile.sources:
            found.append(f"sources.{field}: missing, say where {field} comes from")
    return found
