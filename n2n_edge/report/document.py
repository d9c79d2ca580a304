"""The form of a run's `report.json`, which the HTML report and the model card are written from."""

from typing import Literal, NotRequired, TypedDict

from n2n_edge.metrics.figures import FigureJson, Provenance
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
    "PrecisionRecallJson",
    "RunReport",
    "SearchJson",
    "TaskJson",
    "TrainingJson",
]


class TaskJson(TypedDict):
    """What the networks do, and the metric that they are evaluated by: `fidelity` to the teacher without labels."""

    name: str
    metric: str
    reason: NotRequired[str]
    """Why the teacher was taken to do that."""


class ModelJson(TypedDict):
    """One model's figures; its score on the test images stands under the metric's own name."""

    path: str
    accuracy: NotRequired[FigureJson | None]
    map: NotRequired[FigureJson]
    miou: NotRequired[FigureJson]
    oks: NotRequired[FigureJson]
    r2: NotRequired[FigureJson]
    fidelity: NotRequired[FigureJson | None]
    details: NotRequired[dict[str, FigureJson]]
    """Further figures of the evaluation, such as ``ap50`` or ``mae``."""
    sha256: NotRequired[str]
    """Digest of the student's file."""
    label_error: NotRequired[FigureJson]
    """What older reports call ``mae`` of the details."""
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
    runtime: NotRequired[str]
    """What runs the student there; onnxruntime in reports that don't say."""
    evidence: NotRequired[dict[str, object]]
    """What the student's latency is predicted from, where it wasn't measured on the device."""
    shares: NotRequired[list[dict[str, object]]]
    """Of a student in several precisions: each one's part of latency and MACs, and the evidence for it."""


class CandidateJson(TypedDict):
    """One candidate in the order evaluated; what was not found out is None. `score` is in the task's metric."""

    stage: int
    index: int
    reward: float
    score: float | None
    accuracy: NotRequired[float | None]
    """What older reports call the score."""
    feasible: bool
    params: int
    size_mb: float
    macs: int
    latency_ms: float | None
    trained: bool
    memory_bound_mb: NotRequired[float]
    latencies_ms: NotRequired[dict[str, float]]
    """Expected latency per device name, in a run for several devices."""
    int8: NotRequired[list[str]]
    """The regions that are in int8, where any is."""
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
    precision: NotRequired[Literal["fp32", "fp16", "int8"]]
    """What it is calculated in, in a student that isn't all float32."""
    merged_into: NotRequired[str]
    """The layer that it is part of in the student."""


class ConfidenceJson(TypedDict):
    """How sure the winner's place is by the metric alone: its share of samples of the validation images, in 0..1."""

    probability: float
    finalists: int


class SearchSecondsJson(TypedDict):
    """What a search took, in seconds, and the part of its sensitivity profile, null where it made none."""

    total: float
    profile: float | None


class SearchJson(TypedDict):
    """How the search went; `objective` is the cost that was minimised, `winner` the place of the winner in the list."""

    policy: str
    seed: int
    effort: str
    candidates: list[CandidateJson]
    objective: NotRequired[str]
    winner: NotRequired[int | None]
    confidence: NotRequired[ConfidenceJson]
    """Where several finalists were judged again."""
    seconds: NotRequired[SearchSecondsJson]
    """Of a run's own student."""


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
    """What the student lacks: whole layers, and channels of groups.

    `merged` are runs of layers that are one convolution, by the last one's name; reports before there were any lack it.
    """

    removed: list[str]
    groups: list[GroupJson]
    merged: NotRequired[list[list[str]]]


class PrecisionStepJson(TypedDict):
    """A student after one step on its way to int8 (or ``half``, fp16), on validation images: against its float form.

    `drop` is in points of a hundred of the score (without labels: of fidelity), `loss` the distillation loss towards
    the teacher.
    """

    step: Literal["float", "half", "calibrated", "distilled"]
    drop: float
    loss: float


class PrecisionSizesJson(TypedDict):
    """Size of the quantized file and that of its float twin."""

    student: FigureJson
    twin: FigureJson


class PrecisionJson(TypedDict):
    """What became of a student in int8 or fp16: steps, and how it stands beside its float twin.

    `latency_ratio` by device is its latency over the twin's; `max_drop` the points that it may lose; `rejected` says
    why the twin ships instead, empty where it doesn't.
    """

    asked: Literal["fp32", "fp16", "int8", "auto"]
    ships: Literal["fp32", "fp16", "int8"]
    regions: list[str]
    steps: list[PrecisionStepJson]
    post_training_losses: dict[str, float]
    """Distillation losses by way of calibrating: ``calibrated``, ``equalised``, ``corrected``; the least counts."""
    latency_ratio: dict[str, FigureJson]
    size_mb: PrecisionSizesJson
    max_drop: float
    rejected: list[str]
    rejected_codes: list[str]


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


class PrecisionRecallJson(TypedDict):
    """Precision of detections at an IoU of 0.5, mean over classes, at recalls of 0, 0.01, ... 1, as COCO has it.

    `against` says what counts as an object: what is labelled, or what the teacher finds. Then the teacher has no curve.
    """

    against: Literal["labels", "teacher"]
    iou: float
    provenance: Provenance
    n: int
    recall: list[float]
    teacher: NotRequired[list[float]]
    student: list[float]


class ConditionsJson(TypedDict):
    """Scores on test images under several conditions, in `metric`."""

    metric: str
    rows: list[ConditionJson]


class RunReport(TypedDict):
    """A run's `report.json`."""

    schema_version: int
    n2n_edge_version: str
    command: str
    created: str
    task: NotRequired[TaskJson]
    """Older reports say nothing of it: their metric is accuracy where the student has one, else fidelity."""
    teacher: ModelJson
    student: ModelJson
    difference: NotRequired[FigureJson]
    """The student's score less the teacher's on the same images, in points, with its 95% interval."""
    budgets: list[VerdictJson]
    parity: ParityJson
    device: DeviceJson
    """The primary device."""
    devices: NotRequired[list[DeviceJson]]
    """All of them, in a run for several."""
    chosen: NotRequired[ChosenJson]
    search: SearchJson
    architecture: ArchitectureJson
    precision: NotRequired[PrecisionJson]
    """Of a student that was quantized, whether that form ships or not."""
    training: TrainingJson
    conditions: NotRequired[ConditionsJson]
    examples: NotRequired[ExamplesJson]
    precision_recall: NotRequired[PrecisionRecallJson]
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
