"""The form of a run's `report.json`, which the HTML report and the model card are written from."""

from typing import NotRequired, TypedDict

from n2n_edge.metrics.figures import FigureJson
from n2n_edge.metrics.verdict import VerdictJson

__all__ = [
    "ArchitectureJson",
    "CandidateJson",
    "ChannelsJson",
    "ChosenJson",
    "ConditionJson",
    "ConditionsJson",
    "DeviceJson",
    "EpochJson",
    "ExampleJson",
    "ExamplesJson",
    "GroupJson",
    "LayerJson",
    "LayerLatencyJson",
    "MarksJson",
    "ModelJson",
    "ParityJson",
    "RunReport",
    "SearchJson",
    "TrainingJson",
]


class ModelJson(TypedDict):
    """One model's figures; `accuracy` where there are labels, `fidelity` to the teacher where there are none."""

    path: str
    accuracy: NotRequired[FigureJson | None]
    fidelity: NotRequired[FigureJson | None]
    sha256: NotRequired[str]
    """Digest of the student's file."""
    label_error: NotRequired[FigureJson]
    """Mean absolute difference from labels that are values, in their unit."""
    params: FigureJson
    size_mb: FigureJson
    macs: FigureJson
    memory_bound_mb: FigureJson
    latency_ms: dict[str, FigureJson]
    """Latency per device name."""


class ParityJson(TypedDict):
    """How well torch and ONNX Runtime agree on `n` real inputs."""

    max_relative_error: float
    top1_agreement: float | None
    n: int


class DeviceJson(TypedDict):
    """The device that the run was for."""

    name: str
    description: str
    evidence: NotRequired[dict[str, object]]
    """What the student's latency is predicted from, where it wasn't measured on the device."""


class CandidateJson(TypedDict):
    """One candidate in the order evaluated; what was not found out is None."""

    stage: int
    index: int
    reward: float
    accuracy: float | None
    feasible: bool
    params: int
    size_mb: float
    macs: int
    latency_ms: float | None
    trained: bool
    memory_bound_mb: NotRequired[float]
    latencies_ms: NotRequired[dict[str, float]]
    """Expected latency per device name, in a run for several devices."""
    entropy: NotRequired[float | None]
    """How undecided the policy was when it proposed the candidate: 1 uniformly random, 0 settled."""


class LayerLatencyJson(TypedDict):
    """What one layer takes in the teacher and in the student; None where it is gone, or nobody can tell."""

    teacher: FigureJson | None
    student: FigureJson | None


class ChannelsJson(TypedDict):
    """How many channels a layer gives in the teacher and in the student; None where it is gone."""

    before: int
    after: int | None


class LayerJson(TypedDict):
    """One of the teacher's layers in the order of the graph; `latency_ms` is by device name.

    A last row called ``other`` has no op type and no channels: what belongs to no layer.
    """

    name: str
    op_type: str
    removed: bool
    latency_ms: dict[str, LayerLatencyJson]
    channels: NotRequired[ChannelsJson]


class SearchJson(TypedDict):
    """How the search went; `objective` is the cost that was minimised, `winner` the place of the winner in the list."""

    policy: str
    seed: int
    effort: str
    candidates: list[CandidateJson]
    objective: NotRequired[str]
    winner: NotRequired[int | None]


class GroupJson(TypedDict):
    """One channel group's width in the teacher and in the student."""

    name: str
    before: int
    after: int
    layers: list[str]


class ChosenJson(TypedDict):
    """Which candidate of which run the student is, where a person chose it; `candidate` counts from one."""

    run: str
    candidate: int


class ArchitectureJson(TypedDict):
    """What the student lacks: whole layers, and channels of groups."""

    removed: list[str]
    groups: list[GroupJson]


class EpochJson(TypedDict):
    """One epoch of the final training; `validation` is the metric on the validation split."""

    epoch: int
    loss: float
    validation: float


class TrainingJson(TypedDict):
    """The final training of the winner."""

    epochs: list[EpochJson]
    best_epoch: int | None
    seconds: float


class ConditionJson(TypedDict):
    """How teacher and student do on images that are corrupted at a severity of 1 to 5.

    `teacher` is None where the metric is fidelity to it.
    """

    corruption: str
    severity: int
    teacher: FigureJson | None
    student: FigureJson


class MarksJson(TypedDict):
    """What outputs or labels say of an image, in pixels of it."""

    boxes: list[tuple[float, float, float, float, int, float | None]]
    """Left, top, right, bottom, class, and the score of what was detected."""
    points: list[tuple[float, float]]
    area: NotRequired[str]
    """The class of every pixel, a PNG as data URI, whose palette is transparent at class 0."""


class ExampleJson(TypedDict):
    """A test image as the network gets it, with what teacher and student say of it."""

    image: str
    """A JPEG as data URI."""
    width: int
    height: int
    agreement: float | None
    teacher: MarksJson
    student: MarksJson
    labels: NotRequired[MarksJson]


class ExamplesJson(TypedDict):
    """The test images on which teacher and student differ most, the worst first, of so many that were looked at."""

    of: int
    classes: list[str]
    images: list[ExampleJson]


class ConditionsJson(TypedDict):
    """Accuracy, or fidelity, on test images under several conditions."""

    metric: str
    rows: list[ConditionJson]


class RunReport(TypedDict):
    """A run's `report.json`."""

    schema_version: int
    n2n_edge_version: str
    command: str
    created: str
    teacher: ModelJson
    student: ModelJson
    budgets: list[VerdictJson]
    parity: ParityJson
    device: DeviceJson
    """The primary device."""
    devices: NotRequired[list[DeviceJson]]
    """All of them, in a run for several."""
    chosen: NotRequired[ChosenJson]
    search: SearchJson
    architecture: ArchitectureJson
    training: TrainingJson
    conditions: NotRequired[ConditionsJson]
    examples: NotRequired[ExamplesJson]
    layers: NotRequired[list[LayerJson]]
    data: dict[str, object]
    environment: dict[str, object]
    warnings: list[str]
    warning_codes: NotRequired[list[str]]
    """The kind of each warning, in the same order."""
    notes: NotRequired[list[str]]
    """What figures rest on: evidence, sources, assumptions; older reports have them among the warnings."""
    note_codes: NotRequired[list[str]]
    """The kind of each note, in the same order."""
