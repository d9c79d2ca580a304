"""`n2n-edge compress`: from a teacher, data, a device and budgets to a student that meets them."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.errors import BudgetMissedError, InputError

if TYPE_CHECKING:
    from n2n_edge.ship import CompressResult, CompressSettings

__all__ = ["compress"]

_BUDGETS = "Budgets"
_SEARCH = "Search and training"
_RUN = "Run"


def compress(
    context: typer.Context,
    teacher: Annotated[
        Path | None, typer.Argument(help="ONNX model to compress; left out: the built-in example.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Folder of images (per class, or unlabelled), .npz file, or package.module:function."),
    ] = None,
    device: Annotated[str, typer.Option(help="Profile name or .toml file; see `n2n-edge profiles list`.")] = "cpu",
    max_mb: Annotated[
        float | None, typer.Option(help="Largest file, MB (10^6 bytes).", rich_help_panel=_BUDGETS)
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            help="Longest latency on the device: measured if it is this host, else predicted.", rich_help_panel=_BUDGETS
        ),
    ] = None,
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
            help="Cost to minimise: params, size_mb, macs, memory_bound_mb, latency_ms "
            "[default: the tightest budget's, or params].",
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
    policy: Annotated[str, typer.Option(help="reinforce, random or greedy.", rich_help_panel=_SEARCH)] = "reinforce",
    policy_from: Annotated[
        Path | None, typer.Option(help="Folder of a run whose trained policy to start from.", rich_help_panel=_SEARCH)
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(help="Mean per channel of pixels in 0..1, with commas [default: the teacher's metadata]."),
    ] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation per channel, likewise.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.", rich_help_panel=_RUN)] = Path("n2n-run"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, with its own settings.", rich_help_panel=_RUN)
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON document on stdout.", rich_help_panel=_RUN)
    ] = False,
) -> None:
    """Search for a smaller student, train it by distillation, and ship it with proof that it meets the budgets."""
    from n2n_edge.ship import CompressSettings, RunFolder, require_training_packages

    require_training_packages()
    settings = CompressSettings(
        teacher=None if teacher is None else str(teacher),
        data=data if data is not None or teacher is not None or resume else None,
        device=device,
        max_mb=max_mb,
        max_latency_ms=max_latency_ms,
        max_memory_mb=max_memory_mb,
        max_params=max_params,
        max_macs=max_macs,
        min_accuracy=min_accuracy,
        objective=objective,
        effort=effort,
        candidates=candidates,
        minutes=minutes,
        epochs=epochs,
        seed=seed,
        policy=policy,
        policy_from=None if policy_from is None else str(policy_from),
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
    )
    if resume:
        folder, known = RunFolder.resume(out)
        _refuse_other_settings(context, settings, known)
        settings = known
    else:
        _check_before_writing(settings)
        folder = RunFolder.new(out)
    from n2n_edge.cli.live import live_view
    from n2n_edge.ship import run_compress

    with live_view(settings, as_json) as observer:
        result = run_compress(folder, settings, observer)
    if as_json:
        print(json.dumps(result.report, indent=2))
    else:
        _print(result)
    if not result.met:
        missed = [verdict for verdict in result.verdicts if not verdict.met]
        raise BudgetMissedError("; ".join(f"{verdict.budget.option}: {verdict.reason}" for verdict in missed))


def _check_before_writing(settings: "CompressSettings") -> None:
    """Find what is plainly wrong before a folder is made for the run."""
    from n2n_edge.devices import load_profile
    from n2n_edge.search.policies import POLICY_NAMES
    from n2n_edge.ship.policy_file import load_policies

    load_profile(settings.device)
    if settings.policy not in POLICY_NAMES:
        raise InputError(f"--policy {settings.policy}: no such policy; give one of {', '.join(POLICY_NAMES)}")
    if settings.teacher is not None:
        from n2n_edge.graph import load_model

        load_model(Path(settings.teacher))
    if settings.policy_from is not None:
        load_policies(Path(settings.policy_from))


def _refuse_other_settings(context: typer.Context, given: "CompressSettings", known: "CompressSettings") -> None:
    for name in known.__dataclass_fields__:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and getattr(given, name) != getattr(known, name):
            option = name if name == "teacher" else f"--{name.replace('_', '-')}"
            raise InputError(
                f"{option} {getattr(given, name)}: this run was begun with {getattr(known, name)}; leave it out, "
                "or start a new run with another --out"
            )


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text}: not numbers with commas between; give such as 0.485,0.456,0.406") from error


def _print(result: "CompressResult") -> None:
    from rich.console import Console

    from n2n_edge.cli.comparison import comparison_table
    from n2n_edge.gate import verdict_table

    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(comparison_table(result.report))
    if result.verdicts:
        console.print(verdict_table(result.verdicts))
    for warning in result.report["warnings"]:
        console.print(f"note: {warning}", style="yellow", highlight=False)
    console.print(f"student: {result.student}", highlight=False, soft_wrap=True)
    console.print(f"report:  {result.folder / 'report.html'}", highlight=False, soft_wrap=True)
