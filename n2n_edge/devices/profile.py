"""What a device is: its cores, memory, runtime and data-sheet peaks, checked strictly."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from n2n_edge.devices.terms import TERMS
from n2n_edge.metrics.precisions import Precision
from n2n_edge.metrics.runtimes import RuntimeName, runtime_named

__all__ = ["NAME_PATTERN", "Calibration", "PowerMode", "Profile"]

NAME_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Provider = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]+ExecutionProvider$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

Range = tuple[Positive, Positive]

SOURCED = ("memory_mb", "usable_memory_mb", "peak_gflops", "bandwidth_gb_s", "launch_overhead_us", "channel_multiple")
"""Fields whose origin every profile has to state under `sources`."""


class Calibration(BaseModel):
    """Rates of a device, fitted on models that were really timed (or whose energy was), with the evidence for them.

    `rates` maps terms of `devices/terms.py` to nanoseconds for one unit, or to nanojoules where `quantity` is
    ``energy``. `low_ratio` and `high_ratio` bound measured over predicted for nine models out of ten; `median_error`
    and `p90_error` are fractions of the measured value; all four are of models that the fit had not seen. `macs` and
    `input_pixels` are the ranges that the fitted models span. `measured_on` names the profile of the timed device:
    another one's name where the figures are borrowed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    quantity: Literal["latency", "energy"] = "latency"
    measured_on: Name
    runtime: Text
    threads: int = Field(ge=1, le=1024)
    precisions: tuple[Precision, ...] = Field(min_length=1, strict=False)
    models: int = Field(ge=1)
    median_error: float = Field(ge=0, allow_inf_nan=False)
    p90_error: float = Field(ge=0, allow_inf_nan=False)
    low_ratio: Positive
    high_ratio: Positive
    macs: Range = Field(strict=False)
    input_pixels: Range = Field(strict=False)
    source: Text
    rates: dict[str, Positive]

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if not self.low_ratio <= 1 <= self.high_ratio:
            raise ValueError("low_ratio: 1 must lie between low_ratio and high_ratio")
        for name in ("macs", "input_pixels"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name}: the first figure is the least, the second the most")
        unknown = sorted(set(self.rates) - set(TERMS))
        if unknown:
            raise ValueError(f"rates.{unknown[0]}: there is no term of this name; terms are {', '.join(TERMS)}")
        if not self.rates:
            raise ValueError("rates: empty; give nanoseconds per unit of each term")
        return self


class PowerMode(BaseModel):
    """A mode that limits a board's power: what it leaves of cores and clocks."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    watts: Positive
    cores: int | None = Field(default=None, ge=1, le=1024)
    cpu_mhz: Positive | None = None
    gpu_mhz: Positive | None = None


class Profile(BaseModel):
    """One device, as its TOML file describes it.

    `memory_mb` is all the memory, `usable_memory_mb` what a program may count on (both 10^6 bytes). `peak_gflops` is
    dense fp32 arithmetic of the `compute_unit`: for ``cpu`` over `default_threads`, for ``gpu`` over the whole GPU;
    `peak_fp16_gflops` and `peak_int8_gops` are given where those are faster. `clock_mhz` is the compute unit's.
    `launch_overhead_us` is what each operator costs besides arithmetic and memory traffic. Widths are best kept at
    multiples of `channel_multiple`, or of that of the precision; kernels compute `channel_block` channels at once (as
    many unless given). `core` is the kind of core that the default threads run on, or the kind of GPU: what other
    boards with it were timed at tells of this one. `family` is the heading under which a list shows it. `relative`
    names the device whose calibrations this one borrows, scaled by what the data sheets say of both, where no core is
    named or both are the same. `sources` maps a field to the document, or the reasoning, its value comes from.

    >>> profile = n2n_edge.load_profile("raspberry-pi-4")
    >>> profile.name, profile.cores
    ('raspberry-pi-4', 4)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    aliases: tuple[Name, ...] = Field(default=(), strict=False)
    family: Text | None = Field(default=None, max_length=32)
    description: Text
    core: Name | None = None
    is_host: bool = False
    cores: int = Field(ge=1, le=1024)
    clock_mhz: Positive = Field(le=100_000)
    default_threads: int = Field(ge=1, le=1024)
    runtime: RuntimeName
    providers: tuple[Provider, ...] = Field(min_length=1, strict=False)
    compute_unit: Literal["cpu", "gpu"]
    memory_mb: Positive = Field(le=10_000_000)
    usable_memory_mb: Positive
    peak_gflops: Positive = Field(le=10_000_000)
    peak_fp16_gflops: Positive | None = Field(default=None, le=10_000_000)
    peak_int8_gops: Positive | None = Field(default=None, le=10_000_000)
    bandwidth_gb_s: Positive = Field(le=100_000)
    launch_overhead_us: float = Field(ge=0, le=100_000, allow_inf_nan=False)
    channel_multiple: int = Field(ge=1, le=256)
    channel_block: int | None = Field(default=None, ge=1, le=256)
    channel_multiple_fp16: int | None = Field(default=None, ge=1, le=256)
    channel_multiple_int8: int | None = Field(default=None, ge=1, le=256)
    relative: Name | None = None
    power_modes: dict[str, PowerMode] = Field(default_factory=dict)
    sources: dict[str, Text]
    calibrations: tuple[Calibration, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        for complaint in _contradictions(self):
            raise ValueError(complaint)
        return self

    @property
    def block(self) -> int:
        """How many channels the kernels compute at once."""
        return self.channel_block or self.channel_multiple

    @property
    def float_precision(self) -> Precision:
        """What float32 kernels are calculated in: ncnn takes float16 by itself where there is arithmetic for it."""
        return "fp16" if self.runtime == "ncnn" and self.peak_fp16_gflops is not None else "fp32"

    def under(self, runtime: str | None) -> Self:
        """Return the same device with another runtime on it; None for the profile's own.

        >>> n2n_edge.load_profile("raspberry-pi-5").under("ncnn").runtime
        'ncnn'

        Raises:
            InputError: no such runtime.
        """
        return self if runtime is None else self.model_copy(update={"runtime": runtime_named(runtime)})

    def peak(self, precision: Precision) -> float:
        """Return dense 10^9 operations a second; where a precision has no peak of its own, that of the next wider."""
        fp16 = self.peak_fp16_gflops or self.peak_gflops
        return {"fp32": self.peak_gflops, "fp16": fp16, "int8": self.peak_int8_gops or fp16}[precision]


def _contradictions(profile: Profile) -> list[str]:
    """Return what two fields of a profile say against each other; each text begins with the field to change."""
    found = []
    if profile.default_threads > profile.cores:
        found.append(f"default_threads: {profile.default_threads} is more than cores ({profile.cores})")
    if profile.usable_memory_mb > profile.memory_mb:
        found.append(f"usable_memory_mb: {profile.usable_memory_mb:g} is more than memory_mb ({profile.memory_mb:g})")
    if profile.compute_unit == "gpu" and set(profile.providers) == {"CPUExecutionProvider"}:
        found.append("providers: compute_unit is 'gpu', but only the CPU provider is named")
    if profile.relative in (profile.name, *profile.aliases):
        found.append(f"relative: '{profile.relative}' is the device itself; name another one, or leave it out")
    if profile.is_host and profile.relative is not None:
        found.append("relative: this machine has none; calibrate it with `n2n-edge device calibrate --host`")
    for index, calibration in enumerate(profile.calibrations):
        if calibration.threads > profile.cores and not profile.is_host:  # this machine may lend fewer cores today
            found.append(f"calibrations.{index}.threads: {calibration.threads} is more than cores ({profile.cores})")
    for name, mode in profile.power_modes.items():
        if mode.cores is not None and mode.cores > profile.cores:
            found.append(f"power_modes.{name}.cores: {mode.cores} is more than cores ({profile.cores})")
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
