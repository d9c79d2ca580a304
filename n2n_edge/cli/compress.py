"""`n2n-edge compress`: from a teacher, data, a device and budgets to a student that meets them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.cli.numbers import numbers
from n2n_edge.cli.outcome import conclude
from n2n_edge.cli.output import print_json
from n2n_edge.cli.stopping import resumable
from n2n_edge.errors import BudgetMissedError, InputError
from n2n_edge.metrics.figures import SCHEMA_VERSION

if TYPE_CHECKING:
    from n2n_edge.runs.folder import RunFolder
    from n2n_edge.runs.settings import CompressSettings

__all__ = ["compress"]

_BUDGETS = "Budgets"
_SEARCH = "Search and training"
_RUN = "Run"


def compress(
    context: typer.Context,
    teacher: Annotated[
        str | None,
        typer.Argument(
            help="What to compress: an ONNX file, a .pt2 program, package.module:function that gives a torch module, "
            "torchvision:NAME or timm:NAME; left out: the built-in example.",
            show_default=False,
        ),
    ] = None,
    teacher_option: Annotated[
        str | None, typer.Option("--teacher", help="The same as an option.", show_default=False)
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="State dict for a torch teacher, saved by torch.save or as safetensors.")
    ] = None,
    trust_pt2: Annotated[
        bool,
        typer.Option(
            "--trust-pt2",
            help="Load a .pt2 teacher whatever it holds: such a file is code, and one from elsewhere may run anything. "
            "Without this only tensors and plain operators are taken.",
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(help="Folder of images (per class, or unlabelled), .npz file, or package.module:function."),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="File of the classes' names, one a line, in the order of the teacher's outputs.",
            show_default="a folder's classes in sorted order",
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Profile name or .toml file, see `n2n-edge profiles list`; several for a student that meets the "
            "latency budget on all of them, the primary one first.",
            show_default="cpu",
            autocompletion=device_names,
        ),
    ] = None,
    max_mb: Annotated[
        float | None, typer.Option(help="Largest file, MB (10^6 bytes).", rich_help_panel=_BUDGETS)
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            help="Longest latency on the device: measured if it is this host, else predicted.", rich_help_panel=_BUDGETS
        ),
    ] = None,
    accept_expected: Annotated[
        bool,
        typer.Option(
            "--accept-expected",
            help="Hold a predicted latency's expected value against its budget, not its upper bound.",
            rich_help_panel=_BUDGETS,
        ),
    ] = False,
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Largest memory bound, MB.", rich_help_panel=_BUDGETS)
    ] = None,
    max_params: Annotated[float | None, typer.Option(help="Most parameters.", rich_help_panel=_BUDGETS)] = None,
    max_macs: Annotated[
        float | None, typer.Option(help="Most multiply-accumulates per inference.", rich_help_panel=_BUDGETS)
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(help="Least accuracy (or fidelity) on the test images, as a fraction.", rich_help_panel=_BUDGETS),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="Cost to minimise: params, size_mb, macs, memory_bound_mb, latency_ms.",
            show_default="the tightest budget's, or params",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    effort: Annotated[str, typer.Option(help="quick, standard or thorough.", rich_help_panel=_SEARCH)] = "standard",
    candidates: Annotated[
        int | None, typer.Option(help="Candidates to train, over both stages.", rich_help_panel=_SEARCH)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Time limit for the whole run.", rich_help_panel=_SEARCH)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of the final distillation.", rich_help_panel=_SEARCH)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of splits, policies and training.", rich_help_panel=_SEARCH)] = 0,
    policy: Annotated[
        str, typer.Option(help="reinforce, n2n, random, greedy or evolution.", rich_help_panel=_SEARCH)
    ] = "reinforce",
    policy_from: Annotated[
        Path | None, typer.Option(help="Folder of a run whose trained policy to start from.", rich_help_panel=_SEARCH)
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            help="What the teacher's outputs are: classes (scores, compared by the largest) or values (anything else: "
            "coordinates, maps, embeddings; compared by their error).",
            show_default="by its graph and the labels, and said",
            rich_help_panel=_SEARCH,
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            help="Mean per channel of pixels in 0..1, with commas.", show_default="the teacher's metadata, or found out"
        ),
    ] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation per channel, likewise.")] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="Channels, height, width, such as 3x224x224, if the teacher leaves them free.")
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip", help="Mirror training images.", show_default="yes for three channels, no for one"
        ),
    ] = None,
    corruptions: Annotated[
        bool,
        typer.Option(
            "--corruptions/--no-corruptions",
            help="Judge teacher and student under noise, blur, darkness, low contrast and JPEG, too.",
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the run.", rich_help_panel=_RUN)] = Path("n2n-run"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, with its own settings.", rich_help_panel=_RUN)
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="Write the run's curves to OUT/tensorboard, too, for TensorBoard.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON document on stdout.", rich_help_panel=_RUN)
    ] = False,
) -> None:
    """Search for a smaller student, train it by distillation, and ship it with proof that it meets the budgets.

    Examples:

    - `n2n-edge compress --device raspberry-pi-4 --max-mb 0.6 --effort quick --out demo`
    - `n2n-edge compress teacher.onnx --data images/ --device raspberry-pi-4 --max-mb 0.6 --max-latency-ms 20`
    - `n2n-edge compress --resume --out run`
    """
    from n2n_edge.runs.api import require_training_packages
    from n2n_edge.runs.folder import RunFolder
    from n2n_edge.runs.settings import CompressSettings, absolute_paths
    from n2n_edge.runs.tensorboard import require_tensorboard, with_tensorboard

    require_training_packages()
    if tensorboard:
        require_tensorboard()
    if teacher is not None and teacher_option is not None:
        raise InputError(f"--teacher {teacher_option}: {teacher} is given as the teacher already; give one of them")
    given = absolute_paths(
        {
            "teacher": teacher if teacher is not None else teacher_option,
            "weights": weights,
            "data": data,
            "classes": classes,
            "device": device or "cpu",
            "max_mb": max_mb,
            "max_latency_ms": max_latency_ms,
            "max_memory_mb": max_memory_mb,
            "max_params": max_params,
            "max_macs": max_macs,
            "min_accuracy": min_accuracy,
            "objective": objective,
            "effort": effort,
            "candidates": candidates,
            "minutes": minutes,
            "epochs": epochs,
            "seed": seed,
            "policy": policy,
            "policy_from": policy_from,
            "outputs": outputs,
            "mean": numbers("--mean", mean),
            "std": numbers("--std", std),
            "input_shape": _shape(input_shape),
            "flip": flip,
            "corruptions": corruptions,
            "accept_expected": accept_expected,
            "trust_pt2": trust_pt2,
        }
    )
    if resume:
        folder, settings = RunFolder.resume(out)
        _refuse_other_settings(context, given, settings)
    else:
        folder, settings = RunFolder.new(out), CompressSettings(**given)  # type: ignore[arg-type]
    try:
        with resumable(lambda: _way_on(folder)):
            from n2n_edge.cli.live import live_view
            from n2n_edge.runs.run import run_compress

            with (
                live_view(settings, as_json) as view,
                with_tensorboard(folder, settings, view, tensorboard) as observer,
            ):
                result = run_compress(folder, settings, observer)
    except BudgetMissedError as error:
        if as_json:
            print_json({"schema_version": SCHEMA_VERSION, "passed": False, "error": str(error), **error.details})
        raise
    conclude(result, as_json)


def _way_on(folder: "RunFolder") -> str:
    """Return how to go on with a run that was stopped."""
    if not folder.settings.exists():
        return "nothing had begun: give the same command again"
    return f"go on with `{folder.resume_command}`"


def _refuse_other_settings(context: typer.Context, given: dict[str, object], known: "CompressSettings") -> None:
    for name, value in given.items():
        asked = "teacher_option" if name == "teacher" and context.params.get("teacher_option") else name
        source = context.get_parameter_source(asked)
        if source is None or source.name != "COMMANDLINE":
            continue
        if name == "device" and _profile_names(value) == _profile_names(known.device):
            continue  # an alias of the same
        if value != getattr(known, name):
            option = name if name == "teacher" else f"--{name.replace('_', '-')}"
            raise InputError(
                f"{option} {_words(value)}: this run was begun with {_words(getattr(known, name))}; leave it out, "
                "or start a new run with another --out"
            )


def _profile_names(devices: object) -> list[str]:
    from n2n_edge.devices.registry import load_profile

    named = devices if isinstance(devices, tuple) else (devices,)
    return [load_profile(str(device)).name for device in named]


def _words(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.lower().replace(",", "x").split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--input-shape {text}: not channels, height and width; give such as 3x224x224")
    return tuple(int(part) for part in parts)
