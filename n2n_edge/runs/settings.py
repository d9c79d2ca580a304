"""The settings of a run, as a person gives them."""

import shlex
from dataclasses import InitVar, dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import TypeVar, get_args, get_origin, get_type_hints

from n2n_edge.data.loading import check_loading
from n2n_edge.data.preprocessing_options import check_options
from n2n_edge.errors import InputError
from n2n_edge.importing import is_function_name
from n2n_edge.metrics.budget import Budget
from n2n_edge.metrics.costs import COSTS, OBJECTIVES, with_present_names
from n2n_edge.metrics.precisions import SHIPPED
from n2n_edge.metrics.runtimes import runtime_named
from n2n_edge.runs.effort import EFFORTS, Effort
from n2n_edge.runs.setting_values import check_cluster, check_input_size, named_devices, refuse_precision
from n2n_edge.tasks.names import check_task
from n2n_edge.training.settings import check_augment, check_device

__all__ = ["REPEATED", "CompressSettings"]

LARGEST_SEED = 2**32 - 2
"""The largest seed that numpy's frozen generator takes, less the one that is added for the test split."""


BUDGETS, SEARCH, PREPROCESSING = "Budgets", "Search and training", "Preprocessing"
"""The parts of the help that settings stand in; the others stand in none."""

REPEATED = ("bind", "measured", "unlabelled")
"""Settings whose option is given once for every value."""

_Default = TypeVar("_Default")


def _setting(
    default: _Default,
    help_text: str,
    panel: str | None = None,
    *,
    shown: str | None = None,
    flag: str | None = None,
    may_change: bool = False,
) -> _Default:
    """Give the field of a setting; its option on the command line is made of `help_text` and what follows.

    `panel` is its part of the help, `shown` its default in words, `flag` how a truth value is spelled there. One that
    doesn't change results `may_change` when a run is resumed.
    """
    words = {"help": help_text, "panel": panel, "shown": shown, "flag": flag, "may_change": may_change}
    return field(default=default, metadata=words)


@dataclass(frozen=True)
class CompressSettings:
    """Everything that decides what a run does; equal settings, data and teacher give the same student.

    `teacher` is an ONNX file or a torch network (see `torch_teacher`); None means the built-in example. `device` is one
    name or file, or several, the primary one first (see `named_devices`). `task` says what it does;
    ``auto`` decides by its graph and the labels. A run keeps the number of torch's
    `threads` that it began with, since it decides how sums are rounded. Budgets are in MB (10^6 bytes), ms, and
    fractions of one. `min_accuracy` gives `min_score` by another name, under which it isn't kept.

    >>> settings = n2n_edge.CompressSettings(max_mb=0.5, effort="quick")
    >>> settings.seed, [budget.limit for budget in settings.budgets]
    (0, [0.5])
    """

    teacher: str | None = _setting(
        None,
        "What to compress: an ONNX file, a .pt2 program, package.module:function that gives a torch module, "
        "torchvision:NAME or timm:NAME; left out: the built-in example.",
    )
    weights: str | None = _setting(None, "State dict for a torch teacher, saved by torch.save or as safetensors.")
    data: str | None = _setting(
        None,
        "Folder of images (per class, or unlabelled); labels of objects, points, masks or numbers (data.yaml of YOLO, "
        "COCO's JSON, a CSV, or a folder that holds these, Pascal VOC's XML or masks); .npz file, or "
        "package.module:function.",
    )
    unlabelled: tuple[str, ...] | None = _setting(
        None,
        "Folder of further images to learn from, which need no labels, whatever its sub-folders are called; repeat it "
        "for several.",
    )
    classes: str | None = _setting(
        None,
        "File of the classes' names, one a line, in the order of the teacher's outputs.",
        shown="a folder's classes in sorted order",
    )
    device: str | tuple[str, ...] = _setting(
        "cpu",
        "Profile name or .toml file, see `n2n-edge profiles list`; several for a student that meets the latency "
        "budget on all of them, the primary one first.",
        shown="cpu",
    )
    measured: tuple[str, ...] | None = _setting(
        None,
        "A timing of the device, such as model.onnx=12.3ms: predictions for it are corrected, and their interval "
        "narrows; repeat it for several.",
    )
    runtime: str | None = _setting(
        None,
        "What runs the student on the device: onnxruntime, ncnn or openvino. Latencies are of that runtime: predicted "
        "from its timings first, measured on what a file is converted to.",
        shown="the profile's, onnxruntime",
    )
    max_mb: float | None = _setting(None, "Largest file, MB (10^6 bytes).", BUDGETS)
    max_latency_ms: float | None = _setting(
        None, "Longest latency on the device: measured if it is this host, else predicted.", BUDGETS
    )
    max_memory_mb: float | None = _setting(None, "Largest memory bound, MB.", BUDGETS)
    max_params: float | None = _setting(None, "Most parameters.", BUDGETS)
    max_macs: float | None = _setting(None, "Most multiply-accumulates per inference.", BUDGETS)
    min_score: float | None = _setting(
        None,
        "Least score on the test images in the task's metric (accuracy, mAP, mIoU, ...; fidelity to the teacher "
        "without labels), as a fraction.",
        BUDGETS,
    )
    max_drop: float | None = _setting(
        None, "Most that the score may lie below the teacher's on the same images, in points of a hundred.", BUDGETS
    )
    objective: str | None = _setting(
        None,
        "Cost to minimise: params, size_mb, macs, memory_bound_mb, latency_ms.",
        SEARCH,
        shown="the tightest budget's, or params",
    )
    precision: str = _setting(
        "fp32",
        "What the student calculates in: fp32, fp16, int8 (all but the output layers of heads), or auto (by regions, "
        "in int8 where that pays on the device).",
        SEARCH,
    )
    effort: str = _setting("standard", "quick, standard or thorough.", SEARCH)
    candidates: int | None = _setting(None, "Candidates to train, over both stages.", SEARCH)
    minutes: float | None = _setting(None, "Time limit for the whole run.", SEARCH)
    epochs: int | None = _setting(None, "Epochs of the final distillation.", SEARCH)
    seed: int = _setting(0, "Seed of splits, policies and training.", SEARCH)
    policy: str = _setting("reinforce", "reinforce, n2n, random, greedy or evolution.", SEARCH)
    task: str = _setting(
        "auto",
        "What the teacher does: classification, multilabel, segmentation, detection, keypoints, regression (anything "
        "else: compared by its error), or package.module:object of your own.",
        SEARCH,
        shown="by its graph and the labels, and said",
    )
    label_weight: float = _setting(
        0.1,
        "What labels count in the loss where an image has one, 0 to 1; the rest is the teacher's. 0: learn from the "
        "teacher alone, labels are for scores.",
        SEARCH,
    )
    decode: str | None = _setting(
        None,
        "package.module:function that reads a detector's outputs: given the arrays of a batch it returns boxes (left, "
        "top, right, bottom in pixels of the input), scores and classes.",
        SEARCH,
        shown="a head that fits the outputs, and said",
    )
    mean: tuple[float, ...] | None = _setting(
        None,
        "Mean per channel, with commas, in the unit of --pixels and the order of --channels.",
        PREPROCESSING,
        shown="metadata, or found out",
    )
    std: tuple[float, ...] | None = _setting(None, "Standard deviation per channel, likewise.", PREPROCESSING)
    pixels: str | None = _setting(
        None, "Range of pixels before mean and std: 0..1, 0..255 or -1..1.", PREPROCESSING, shown="metadata, or 0..1"
    )
    channels: str | None = _setting(
        None, "Order of colours in the network's input: rgb, or bgr as OpenCV has it.", PREPROCESSING, shown="rgb"
    )
    resize: str | None = _setting(
        None,
        "How pictures come to the input's size: center-crop, squash (whatever the proportions) or letterbox (padded).",
        PREPROCESSING,
        shown="metadata, or center-crop",
    )
    crop_ratio: float | None = _setting(
        None,
        "Part of the shorter side that a center-crop keeps, such as 0.875 (torchvision's 224 of 256).",
        PREPROCESSING,
        shown="all of the shorter side",
    )
    interpolation: str | None = _setting(
        None, "nearest, bilinear, bicubic, lanczos or area.", PREPROCESSING, shown="bilinear"
    )
    antialias: bool | None = _setting(
        None,
        "Scale down over all pixels, as Pillow and torchvision do; without, between the nearest, as OpenCV does.",
        PREPROCESSING,
        shown="yes",
    )
    pad_color: tuple[int, ...] | None = _setting(
        None, "Colour around a letterbox in RGB, 0 to 255, one value or with commas.", PREPROCESSING, shown="114"
    )
    pad_position: str | None = _setting(
        None, "Where the picture is in a letterbox: center, or top-left as YOLOX has it.", PREPROCESSING, shown="center"
    )
    input_shape: tuple[int, ...] | None = _setting(
        None, "Channels, height, width, such as 3x224x224, if the teacher leaves them free."
    )
    input_size: str = _setting(
        "keep",
        "Size of the images that the student takes: keep (the teacher's), a smaller one such as 320x320, or auto (of "
        "detectors the largest at which budgets hold, where the untouched teacher keeps enough there).",
        SEARCH,
    )
    bind: tuple[str, ...] | None = _setting(
        None,
        "Value of an input beside the image, such as scale=1.0 or orig_target_sizes=640,640; repeat it for several. "
        "The student has that input, too, with this value as its default; scale:=1.0 makes it a constant for good.",
    )
    opset: int | None = _setting(None, "ONNX opset of the student, for a board's older runtime.", shown="the teacher's")
    ir_version: int | None = _setting(None, "IR version of the student's file.", shown="the teacher's, or the opset's")
    augment: str = _setting(
        "auto",
        "What is done to training images: none, light (shifts), standard (crops and scales), or "
        "package.module:function.",
        PREPROCESSING,
        shown="standard from 96 pixels on, light below",
    )
    flip: bool | None = _setting(
        None, "Mirror training images.", PREPROCESSING, shown="yes for three channels, no for one"
    )
    corruptions: bool = _setting(
        False,
        "Evaluate teacher and student under noise, blur, darkness, low contrast and JPEG, too.",
        flag="--corruptions/--no-corruptions",
    )
    accept_expected: bool = _setting(
        False, "Hold a predicted latency's expected value against its budget, not its upper bound.", BUDGETS
    )
    merging: bool | None = _setting(
        None,
        "Let the search merge layers: the activation between becomes the identity, and both are one convolution. "
        "Merges that lower the latency are tried where it counts.",
        SEARCH,
        flag="--merging/--no-merging",
        shown="yes for policy reinforce",
    )
    trust_pt2: bool = _setting(
        False,
        "Load a .pt2 teacher whatever it holds: such a file is code, and one from elsewhere may run anything. Without "
        "this only tensors and plain operators are taken.",
    )
    train_device: str = _setting(
        "auto",
        "Where to train: auto (a GPU where there is one), cpu, cuda, cuda:N or mps. Latency is timed on --device, and "
        "what ships is evaluated on the processor, all the same.",
        SEARCH,
    )
    train_precision: str = _setting(
        "auto",
        "Number format of training: fp32, bf16, fp16 (with loss scaling), or auto, the fastest that device and network "
        "allow.",
        SEARCH,
    )
    gpus: int | None = _setting(None, "GPUs that share the final distillation, from cuda:0 on.", SEARCH, shown="one")
    batch: int | None = _setting(
        None,
        "Images that go through the network at once; gradients are summed up to 128 images, or as many as give eight "
        "steps of an epoch.",
        SEARCH,
        shown="as many of 128 as memory allows, and said",
    )
    cache_gb: float | None = _setting(
        None,
        "Most disk for decoded images of a large folder, GB (10^9 bytes), in --out while the run lasts; 0 for none.",
        SEARCH,
        shown="half of the free disk, at most twice the memory",
        may_change=True,
    )
    data_workers: int | None = _setting(
        None,
        "Threads that decode images; 0 decodes where they are needed.",
        SEARCH,
        shown="one per core",
        may_change=True,
    )
    proposals: int | None = _setting(
        None,
        "Candidates that are proposed at once, and can be trained at once: more keep more workers busy, and know less "
        "of each other.",
        SEARCH,
        shown="4, or as the policy likes",
    )
    workers: int | None = _setting(
        None,
        "Candidates that are trained side by side, each on as many threads as this machine has or OMP_NUM_THREADS "
        "says; more than one need the extra [cluster]. Results stay the same.",
        SEARCH,
        shown="1, on a cluster as many as it has room for",
        may_change=True,
    )
    cluster: str | None = _setting(
        None,
        "Where they are trained: auto (the Ray that runs on this machine), ray://host:10001, or local (Ray is started "
        "here, as for several workers).",
        SEARCH,
        shown="this process",
        may_change=True,
    )
    retries: int = _setting(
        2,
        "How often a candidate is begun again whose worker ends, hangs or lacks memory, before it counts as failed.",
        SEARCH,
        may_change=True,
    )
    strict_data: bool = _setting(
        False,
        "Refuse data with an image that can't be read, of which otherwise one per cent are named and passed over.",
        flag="--strict-data/--no-strict-data",
        may_change=True,
    )
    threads: int | None = None
    min_accuracy: InitVar[float | None] = field(default=None, kw_only=True)

    def __post_init__(self, min_accuracy: float | None) -> None:
        if min_accuracy is not None:
            names = with_present_names({"min_accuracy": min_accuracy, "min_score": self.min_score})
            object.__setattr__(self, "min_score", names["min_score"])
        _check_types(self)
        object.__setattr__(self, "device", named_devices(self.device))
        if self.effort not in EFFORTS:
            raise InputError(f"‹effort› {self.effort}: no such effort; give one of {', '.join(EFFORTS)}")
        if self.precision not in SHIPPED:
            raise InputError(f"‹precision› {self.precision}: no such precision; give one of {', '.join(SHIPPED)}")
        if self.runtime is not None:
            object.__setattr__(self, "runtime", runtime_named(self.runtime))
        refuse_precision(self.precision, self.runtime)
        check_augment(self.augment, self.flip)
        check_device(self.train_device, self.train_precision, 1 if self.gpus is None else self.gpus)
        if self.gpus is not None and self.gpus > 1 and self.train_device not in ("auto", "cuda"):
            raise InputError(f"‹gpus› {self.gpus}: they can't be {self.train_device}; leave ‹train_device› out")
        if self.batch is not None and self.batch < 2:
            raise InputError(f"‹batch› {self.batch}: must be 2 at least, since BatchNorm needs several images")
        check_loading(self.data_workers, self.cache_gb)
        for name in ("candidates", "minutes", "epochs", "proposals", "workers"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and isfinite(value)):
                raise InputError(f"‹{name}› {value:g}: must be a number above 0")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(f"‹seed› {self.seed}: give a whole number from 0 to {LARGEST_SEED}")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads {self.threads}: must be at least 1")
        if not 0 <= self.label_weight <= 1:
            raise InputError(f"‹label_weight› {self.label_weight:g}: give a number from 0 to 1")
        check_cluster(self.cluster, self.retries)
        check_task(self.task)
        check_input_size(self.input_size)
        if self.decode is not None and not is_function_name(self.decode):
            raise InputError(f"‹decode› {self.decode}: must be package.module:function")
        check_options(self)
        # onnx is imported only where it is needed: help, and listing what a run has tried, answer at once
        if self.bind or self.opset is not None or self.ir_version is not None:
            from n2n_edge.graph.bind import parse_bindings
            from n2n_edge.graph.file_version import check_versions

            parse_bindings(self.bind or ())
            check_versions(self.opset, self.ir_version)
        if self.objective is not None and self.objective not in OBJECTIVES:
            raise InputError(f"‹objective› {self.objective}: no such cost; give one of {', '.join(OBJECTIVES)}")
        if self.teacher is not None and self.data is None:
            raise InputError(
                f"no data given for teacher {self.teacher}; add ‹data› with images like those it was trained on"
            )
        _ = self.budgets

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices as they were named, the primary one first."""
        return (self.device,) if isinstance(self.device, str) else self.device

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """The limits that were given, what a board has least of first."""
        scarce = ("size_mb", "latency_ms", "memory_bound_mb")
        rows = sorted(COSTS.values(), key=lambda row: scarce.index(row.key) if row.key in scarce else len(scarce))
        limits = [(row.key, getattr(self, row.field)) for row in rows]
        return tuple(Budget(cost, limit) for cost, limit in limits if limit is not None)

    @property
    def merges(self) -> bool:
        """Whether the search may merge layers: unless told, only with the default policy; others are yardsticks."""
        return self.policy == "reinforce" if self.merging is None else self.merging

    @property
    def amount(self) -> Effort:
        """The effort in figures, `candidates` taken into account: no more than a quarter of them are judged again."""
        effort = EFFORTS[self.effort]
        if self.candidates is None:
            return effort
        removal = round(
            self.candidates * effort.removal_candidates / (effort.removal_candidates + effort.shrinkage_candidates)
        )
        removal = min(max(1, removal), self.candidates)
        shrinkage = max(1, self.candidates - removal)
        rungs = tuple((min(finalists, self.candidates // 4), times) for finalists, times in effort.rungs)
        return replace(effort, removal_candidates=removal, shrinkage_candidates=shrinkage, rungs=rungs)

    def command(self, out: Path) -> str:
        """Return the command line that repeats the run."""
        words = ["n2n-edge", "compress"]
        if self.teacher is not None:
            words.append(shlex.quote(self.teacher))
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("teacher", "threads") or value == item.default:
                continue
            if isinstance(value, bool):
                words.append(f"--{'' if value else 'no-'}{item.name.replace('_', '-')}")
                continue
            if item.name in REPEATED:
                words += [word for one in value for word in (f"--{item.name}", shlex.quote(one))]
                continue
            if item.name == "device":
                words += [word for device in self.devices for word in ("--device", shlex.quote(device))]
                continue
            joint = "x" if item.name == "input_shape" else ","
            text = joint.join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{item.name.replace('_', '-')}", shlex.quote(text)]
        return " ".join([*words, "--out", shlex.quote(str(out))])


_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def _check_types(settings: CompressSettings) -> None:
    """Turn lists into tuples and whole numbers into floats where those belong; raises InputError for other types."""
    hints = get_type_hints(CompressSettings)
    for name, hint in ((item.name, hints[item.name]) for item in fields(settings)):
        value = getattr(settings, name)
        forms = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        if name == "device" or (value is None and NoneType in forms):
            continue
        wanted = next(form for form in forms if form is not NoneType)
        (kind, several) = (get_args(wanted)[0], True) if get_origin(wanted) is tuple else (wanted, False)
        items = list(value) if several and isinstance(value, list | tuple) else [value]
        if (several and not isinstance(value, list | tuple)) or not all(_is_a(item, kind) for item in items):
            option = name if name == "teacher" else f"‹{name}›"
            raise InputError(f"{option} {value!r}: must be {'a list, each ' if several else ''}{_WORDS[kind]}")
        if several:
            object.__setattr__(settings, name, tuple(items))


def _is_a(value: object, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind)
