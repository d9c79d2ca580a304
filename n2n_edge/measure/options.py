"""Options of a measurement: threads, providers, times, inputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from n2n_edge.errors import InputError
from n2n_edge.graph.bind import values_by_name
from n2n_edge.graph.shape_run import DEFAULT_SPATIAL_SIZE
from n2n_edge.measure.messages import MOST_CORES

__all__ = ["PROVIDERS", "BenchOptions", "parse_providers", "refuse_threads"]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "acl": "ACLExecutionProvider",
}
"""Short names of ONNX Runtime's execution providers."""

CPU = "CPUExecutionProvider"
HANG_S = 20.0
TENSORRT = "TensorrtExecutionProvider"
HALF_PRECISION = {
    TENSORRT: ("trt_fp16_enable", "False", "True"),
    PROVIDERS["openvino"]: ("precision", "FP32", "FP16"),
    PROVIDERS["qnn"]: ("enable_htp_fp16_precision", "0", "1"),
}
"""The option of a provider that has one for half precision, and what it is off and on."""

MOST_SECONDS = 604_800.0
"""A week."""
MOST_BATCH = 1_000_000
THREADS_A_CPU, MOST_THREADS_ANYWHERE = 16, 64
"""More threads than this for each processor, and than this on any machine, keep it from doing anything else."""

ProviderOptions = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class BenchOptions:
    """How a model is run and timed; `InputError` if a value is out of range.

    `threads` are intra-op threads, by default the usable cores of the target. `batch` is the size of a free batch
    axis. Runs are repeated for at least `min_time_s`, until the 95% interval of the median lies within `tolerance` (a
    share) of the median, or `max_time_s` is up. `timeout_s` bounds session creation and first run (which may build an
    engine); timed runs that take much longer than `max_time_s` count as hung, too. Inputs are random by `seed`;
    `input_shape` gives the sizes that the first input leaves free, without its batch, by default 224. `bind` gives
    inputs values instead, ``scale=1.0`` or ``sizes=640,640``; of several models each takes those that it has.

    >>> n2n_edge.BenchOptions(threads=2).threads
    2
    """

    threads: int | None = None
    batch: int = 1
    providers: tuple[str, ...] = ()
    provider_options: ProviderOptions = field(default_factory=dict)
    min_time_s: float = 1.0
    max_time_s: float = 10.0
    tolerance: float = 0.02
    timeout_s: float = 600.0
    seed: int = 0
    input_shape: tuple[int, ...] | None = None
    bind: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, count, most in (("threads", self.threads, MOST_CORES), ("batch", self.batch, MOST_BATCH)):
            if count is not None and not 1 <= count <= most:
                raise InputError(f"{name} {count}: must be at least 1 and at most {most}")
        for name in ("max_time_s", "timeout_s", "tolerance"):
            number = getattr(self, name)
            if not 0 < number <= MOST_SECONDS:
                raise InputError(f"{name} {number:g}: must be more than 0 and at most {MOST_SECONDS:.0f}")
        if not 0 <= self.min_time_s <= self.max_time_s:
            raise InputError(f"min_time_s {self.min_time_s:g}: must lie between 0 and max_time_s ({self.max_time_s:g})")
        values_by_name(self.bind)

    @property
    def timed_s(self) -> float:
        """How long timed runs may take before the worker counts as hung: `max_time_s`, and one last run."""
        return 2 * self.max_time_s + min(HANG_S, self.timeout_s)

    @property
    def only_cpu(self) -> bool:
        """Whether nothing but the runtime's own CPU kernels is asked for."""
        return set(self.providers) <= {CPU}

    @property
    def builds_engines(self) -> bool:
        """Whether a provider compiles the model first, which takes minutes and is kept for the next session."""
        return TENSORRT in self.providers

    def request(self, threads: int) -> dict[str, Any]:
        """Return the fields of the worker's requests."""
        provider_options = {name: dict(options) for name, options in self.provider_options.items()}
        fields = {**vars(self), "threads": threads, "provider_options": provider_options}
        fields["bind"] = values_by_name(self.bind)
        del fields["timeout_s"]  # it is kept on this side
        return {**fields, "free_axis": DEFAULT_SPATIAL_SIZE}  # as costs and predictions assume


def refuse_threads(what: str, count: int, logical_cpus: int, where: str) -> None:
    """Raise `InputError` if a machine with so many processors can't work with `count` threads, or streams."""
    most = max(MOST_THREADS_ANYWHERE, THREADS_A_CPU * logical_cpus)
    if count > most:
        raise InputError(
            f"{count} {what} are too many for the {logical_cpus} processors of {where}; give at most {most}"
        )


def parse_providers(names: str, settings: tuple[str, ...] = ()) -> tuple[tuple[str, ...], ProviderOptions]:
    """Return execution providers in order, and options of the first one.

    `names` are short names or full ones, with commas between: ``tensorrt,cuda,cpu``. `settings` are ``KEY=VALUE`` of
    the first one; ``fp16=1`` stands for its half precision where it has an option for that.

    Raises:
        InputError: no name, a name twice, or a setting that isn't of this form.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise InputError(f"‹providers› '{names}': name at least one, such as {', '.join(PROVIDERS)}")
    providers = tuple(PROVIDERS.get(name.lower(), name) for name in wanted)
    for name, provider in zip(wanted, providers, strict=True):
        if not provider.endswith("ExecutionProvider"):
            raise InputError(f"‹providers› {name}: no such provider; short names are {', '.join(PROVIDERS)}")
        if providers.count(provider) > 1:
            raise InputError(f"‹providers› {names}: {name} is named twice")
    options = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise InputError(f"‹provider_option› {setting}: write it as KEY=VALUE")
        options[key.strip()] = value.strip()
    if "fp16" in options:
        options = {**_half_precision(providers[0], options.pop("fp16")), **options}
    return providers, {providers[0]: options} if options else {}


def _half_precision(provider: str, value: str) -> dict[str, str]:
    """Return the option by which a provider computes in half precision."""
    if provider in HALF_PRECISION:
        option, off, on = HALF_PRECISION[provider]
        return {option: on if value.lower() in ("1", "true", "yes", "on") else off}
    raise InputError(f"‹provider_option› fp16={value}: {provider} has no option for half precision")
