"""Messages of a worker: the fields that each must have, their types, and the range in which a figure can be true.

A worker may run on a board that is broken, or isn't the user's. Nothing that it says is used before it has been read
here: `parse` refuses what is missing, of another type, not finite or beyond what can be, and escapes what a terminal
would obey.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from n2n_edge.foreign import printable
from n2n_edge.measure.worker import MAX_SAMPLES

__all__ = [
    "BlockTimed", "Checked", "Clock", "EnergySpent", "FailureMessage", "HolderReady", "Inferred", "InvalidMessageError",
    "KernelTime", "LimitMet", "LimitPrepared", "Measured", "Message", "Opened", "PhaseMessage", "Profiled", "Put",
    "Referred",
    "State", "StreamsRun", "WorkerReady", "one_line", "parse",
]  # fmt: skip

MOST_CORES = 4096
MOST_BYTES = 2**50
MOST_MB = 2**40
MOST_MHZ = 1e6
MOST_WATTS = 1e6
TEXT_LETTERS, TOOL_LETTERS, PATH_LETTERS = 1000, 10_000, 4096
MOST_TEXTS, MOST_KERNELS = 1000, 100_000


class InvalidMessageError(ValueError):
    """A message lacks a field, or has one that can't be; the text is the rest of a sentence about the message."""


def one_line(text: str, length: int = 300) -> str:
    """Return a text on one line without control characters, cut where it is longer than `length`."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= length else text[: length - 3] + "..."


def _shown(text: str) -> str:
    return one_line(text, TEXT_LETTERS)


def _lines(text: str) -> str:
    return "\n".join(printable(line.expandtabs()) for line in text[:TOOL_LETTERS].splitlines())


def _path(text: str) -> str:
    """Let a path pass as it is, if it is one: it goes back to where it came from, and is never shown."""
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise ValueError("must be a path") from error
    if b"\0" in encoded:
        raise ValueError("must be a path")
    return text


def _told(megahertz: float | None) -> float | None:
    """Return a clock's frequency; None, which is not told, where no clock could run at it."""
    return megahertz if megahertz is not None and 0 < megahertz <= MOST_MHZ else None


Text = Annotated[str, AfterValidator(_shown)]
Lines = Annotated[str, AfterValidator(_lines)]
PathThere = Annotated[str, Field(min_length=1, max_length=PATH_LETTERS), AfterValidator(_path)]
Duration = Annotated[float, Field(ge=1e-6)]
"""In whatever unit: no clock here tells less than a nanosecond."""
Samples = Annotated[list[Duration], Field(min_length=1, max_length=MAX_SAMPLES)]
Bytes = Annotated[int, Field(ge=0, le=MOST_BYTES)]
Megabytes = Annotated[int, Field(ge=0, le=MOST_MB)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Cores = Annotated[int, Field(ge=1, le=MOST_CORES)]
CoresUsed = Annotated[float, Field(ge=0, le=MOST_CORES)]
Megahertz = Annotated[float | None, AfterValidator(_told)]
Texts = Annotated[list[Text], Field(max_length=MOST_TEXTS)]
Protocol = Annotated[int, Field(ge=0, le=1000)]
Version = Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}"), AfterValidator(_shown)]


class Message(BaseModel):
    """What a worker says; fields that aren't named here are left out."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    command: ClassVar[str] = ""
    """The request that is answered by it."""

    def claimed_ms(self) -> float:
        """Return for how long what it tells of must have gone on while it was waited for."""
        return 0.0


class WorkerReady(Message):
    """A worker has imported the runtime, and takes requests."""

    protocol: Protocol
    runtime: Text
    baseline_rss_bytes: Bytes | None


class HolderReady(Message):
    """A holder has made its folder, and takes requests."""

    protocol: Protocol
    folder: PathThere


class PhaseMessage(Message):
    """What a worker is at, such as "in timed runs"."""

    phase: Text


class FailureMessage(Message):
    """Why a request, or the start, failed."""

    kind: Text
    message: Text

    @property
    def reached_bytes(self) -> int | None:
        """The memory that a worker over its limit tells of; None where that is no number."""
        number = self.message if self.message.isascii() and self.message.isdecimal() else ""
        return int(number) if 0 < len(number) < 16 else None


class Opened(Message):
    """A model is loaded and was run once."""

    command = "open"

    session_ms: Duration
    first_run_ms: Duration
    engine_ms: Annotated[float, Field(ge=0)] | None
    providers: Annotated[Texts, Field(min_length=1)]
    warnings: Texts
    peak_rss_bytes: Bytes | None

    def claimed_ms(self) -> float:
        return self.session_ms + self.first_run_ms + (self.engine_ms or 0.0)


class EnergySpent(Message):
    """The energy of some runs in J, and the power at rest in W; None where that isn't known."""

    joules: Annotated[float, Field(ge=0)]
    seconds: Duration
    runs: Annotated[int, Field(ge=1, le=2**53)]
    idle_watts: Annotated[float, Field(ge=0, le=MOST_WATTS)] | None
    source: Text

    @model_validator(mode="after")
    def _plausible(self) -> Self:
        if self.joules > MOST_WATTS * self.seconds:
            raise ValueError(f"'joules' over 'seconds' must be at most {MOST_WATTS:g} W")
        return self


class Measured(Opened):
    """A model was timed until its median had settled."""

    command = "measure"

    samples_ms: Samples
    converged: bool
    clock_mhz: Annotated[list[Megahertz], Field(max_length=16)]
    energy: EnergySpent | None
    others_cores: CoresUsed | None

    def claimed_ms(self) -> float:
        return super().claimed_ms() + sum(self.samples_ms)


class BlockTimed(Message):
    """The open model was timed for a moment."""

    command = "block"

    samples_ms: Samples
    others_cores: CoresUsed | None
    clock_mhz: Megahertz

    def claimed_ms(self) -> float:
        return sum(self.samples_ms)


class Referred(Message):
    """Samples of a model's inputs, and what ONNX Runtime gives for them, were written."""

    command = "reference"

    samples: Annotated[int, Field(ge=1, le=MOST_TEXTS)]


class Inferred(Referred):
    """A converted model was run on samples, and what it gave was written."""

    command = "infer"


class StreamsRun(Message):
    """The open model was run in several streams at once."""

    command = "throughput"

    seconds: Duration
    window_counts: Annotated[list[Count], Field(min_length=1, max_length=MOST_TEXTS)]
    samples_ms: Annotated[list[Duration], Field(max_length=MAX_SAMPLES)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.samples_ms) != min(sum(self.window_counts), MAX_SAMPLES):
            raise ValueError("'window_counts' must add up to the number of 'samples_ms'")
        return self

    def claimed_ms(self) -> float:
        return max(1000 * self.seconds, *self.samples_ms, 0.0)


class KernelTime(Message):
    """The time of one kernel of the runtime, in us."""

    name: Text
    op_type: Text
    provider: Text
    us: Duration


class Profiled(Message):
    """A model was run under the runtime's profiler."""

    command = "profile"

    run_us: Annotated[float, Field(ge=0)]
    plain_us: Duration
    kernels: Annotated[list[KernelTime], Field(max_length=MOST_KERNELS)]
    arena_bytes: Bytes | None
    arena_in_use_bytes: Bytes | None

    def claimed_ms(self) -> float:
        return (self.run_us + self.plain_us + sum(kernel.us for kernel in self.kernels)) / 1000


class Checked(Message):
    """What is there: machine, Python, packages, free memory and disk."""

    command = "check"

    cpu: Text
    cores: Cores
    logical_cpus: Cores
    memory_mb: Annotated[Megabytes, Field(ge=1)] | None
    machine: Text
    os: Text
    python: Version
    executable: Text
    numpy: Text | None
    numpy_error: Text = ""
    onnxruntime: Text | None
    onnxruntime_error: Text = ""
    providers: Texts
    available_memory_mb: Megabytes | None
    folder: Text
    free_disk_mb: Megabytes


class Clock(Message):
    """What cpufreq tells of one processor."""

    governor: Text | None
    khz: float | None
    max_khz: float | None

    @property
    def mhz(self) -> float | None:
        """The frequency now; None where it isn't told, or can't be."""
        return None if self.khz is None else _told(self.khz / 1000)

    @property
    def max_mhz(self) -> float | None:
        """The greatest frequency; None where it isn't told, or can't be."""
        return None if self.max_khz is None else _told(self.max_khz / 1000)


class State(Message):
    """How a board stands: files of sysfs, and the output of its tools."""

    command = "state"

    clocks: Annotated[list[Clock], Field(max_length=4 * MOST_CORES)]
    millidegrees: Annotated[list[float], Field(max_length=MOST_TEXTS)]
    tools: dict[str, Lines]


class Put(Message):
    """A piece of a file was taken."""

    command = "put"

    path: PathThere


class LimitPrepared(Message):
    """By what means a worker comes under a limit on its memory."""

    command = "limit"

    cgroup: PathThere | None
    prefix: Annotated[list[PathThere], Field(max_length=64)]


class LimitMet(Message):
    """Whether a worker was stopped for its memory."""

    command = "limit_facts"

    killed: bool


M = TypeVar("M", bound=Message)


def parse(kind: type[M], raw: Mapping[str, Any]) -> M:
    """Return a message with everything that its kind must have.

    Raises:
        InvalidMessageError: a field is missing, of another type, or beyond what can be.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise InvalidMessageError(_words(error)) from None
    except (OverflowError, RecursionError) as error:
        raise InvalidMessageError(f"can't be read ({type(error).__name__})") from error


def _words(error: ValidationError) -> str:
    """Return what is wrong first, as the rest of a sentence: ``lacks 'samples_ms'``."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = ""
    for part in first["loc"]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else part
    field = one_line(field, 80)
    if first["type"] == "missing":
        return f"lacks '{field}'"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" and first["input"] is not None and not isinstance(first["input"], str):
        return f"can't be true{f' in {field}' if field else ''}: {message}"
    return f"has {_value(first['input'])} as '{field}' ({message[0].lower()}{message[1:]})"


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return one_line(repr(value[:60] if isinstance(value, str) else value), 40)
