"""`n2n-edge gate`: exit 1 when a model breaks a budget or costs more than a baseline, 3 when nobody can tell."""

import os
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.cli.output import print_commands, print_json, print_line, print_warning
from n2n_edge.cli.setting_options import numbers_of, with_settings
from n2n_edge.cli.stage import say
from n2n_edge.data.preprocessing_options import PREPROCESSING_OPTIONS
from n2n_edge.errors import InputError, N2NError
from n2n_edge.metrics.costs import COSTS
from n2n_edge.runs.settings import CompressSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from n2n_edge.gating.check import Gated

__all__ = ["gate"]

_BUDGETS = "Budgets"
_BASELINE = "Against a baseline"
_WHERE = "Where it runs"
_FILES = "Budget files"
_OUTPUT = "Output"


def gate(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="ONNX models to check [default: all that the budget file names].",
            show_default=False,
        ),
    ] = None,
    max_mb: Annotated[
        float | None, typer.Option(help="Largest file size in MB (10^6 bytes).", rich_help_panel=_BUDGETS)
    ] = None,
    max_params: Annotated[float | None, typer.Option(help="Most parameters.", rich_help_panel=_BUDGETS)] = None,
    max_macs: Annotated[
        float | None, typer.Option(help="Most multiply-accumulates per inference.", rich_help_panel=_BUDGETS)
    ] = None,
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Largest memory bound in MB.", rich_help_panel=_BUDGETS)
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            help="Longest latency in ms: measured on --target, or on this host with --device cpu; predicted for any "
            "other --device.",
            rich_help_panel=_BUDGETS,
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            *COSTS["score"].flags,
            help="Least score on the test images of --data in the task's metric (accuracy, mAP, mIoU, ...), as a "
            "fraction; without labels fidelity to the baseline.",
            rich_help_panel=_BUDGETS,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Most that the score may lie below the baseline's on the same images, in points of a hundred.",
            rich_help_panel=_BUDGETS,
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Images to evaluate models on, as for `compress`.", rich_help_panel=_BUDGETS)
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="Names of the classes, one a line, in the order of the outputs.", rich_help_panel=_BUDGETS),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="What the models do, as for `compress`; also package.module:object that a model records.",
            rich_help_panel=_BUDGETS,
            show_default="what they record, else by graph and labels",
        ),
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(help="package.module:function that reads a detector's outputs.", rich_help_panel=_BUDGETS),
    ] = None,
    allowed_ops: Annotated[
        list[str] | None,
        typer.Option(help="Operators that may occur: Conv,Relu or @FILE. Repeatable.", rich_help_panel=_BUDGETS),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the first input without its batch, such as 3x224x224, where a model leaves them free "
            "[default: the baseline's or the model's, what a student records, else 224].",
            rich_help_panel=_BUDGETS,
        ),
    ] = None,
    bind: Annotated[
        list[str] | None,
        typer.Option(
            help="Values of an input beside the image, as for `compress`: scale=1.0; model and baseline take those "
            "that they have. Repeatable.",
            rich_help_panel=_BUDGETS,
        ),
    ] = None,
    accept_expected: Annotated[
        bool | None,
        typer.Option(
            "--accept-expected/--no-accept-expected",
            help="Hold a predicted latency's expected value against the limit, not its upper bound.",
            rich_help_panel=_BUDGETS,
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="ONNX model to compare with: size, params, MACs, memory bound, latency (timed in turns), and the "
            "score with --data.",
            rich_help_panel=_BASELINE,
        ),
    ] = None,
    max_regression: Annotated[
        list[str] | None,
        typer.Option(
            help="Growth over the baseline that is allowed: 5%, or of one cost latency_ms=10%, score=1%. Repeatable "
            "[default: 5%].",
            rich_help_panel=_BASELINE,
            show_default=False,
        ),
    ] = None,
    static: Annotated[
        bool | None,
        typer.Option(
            "--static/--no-static",
            help="Check the files alone: nothing is run, no latency, no score.",
            rich_help_panel=_BASELINE,
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Profile name or .toml file of the device; cpu is this host.",
            rich_help_panel=_WHERE,
            autocompletion=device_names,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Where to time: host, host-limited, or ssh://[user@]host.", rich_help_panel=_WHERE),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads; the device's default if left out.", rich_help_panel=_WHERE)
    ] = None,
    providers: Annotated[
        str | None, typer.Option(help="Execution providers in order, with commas.", rich_help_panel=_WHERE)
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="What runs the models: onnxruntime, ncnn or openvino, for which they are converted, and proven the "
            "same, before they are timed. A prediction rests on timings of that runtime first.",
            rich_help_panel=_WHERE,
            show_default="the profile's, onnxruntime",
        ),
    ] = None,
    max_time: Annotated[
        float | None,
        typer.Option(
            help="Seconds of timed runs a model, after which an open verdict stays open [default: 20].",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Budget file [default: the nearest n2n-edge.toml, or pyproject.toml with [tool.n2n-edge.gate]].",
            rich_help_panel=_FILES,
            show_default=False,
        ),
    ] = None,
    no_config: Annotated[
        bool, typer.Option("--no-config", help="Read no budget file.", rich_help_panel=_FILES)
    ] = False,
    skip_unnamed: Annotated[
        bool,
        typer.Option(
            "--skip-unnamed",
            help="Pass over a MODEL that nothing is asked of, with a warning, instead of refusing it.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    init: Annotated[
        bool,
        typer.Option(
            "--init",
            help="Write budgets for MODEL into a budget file: today's figures plus head-room.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    headroom: Annotated[str, typer.Option(help="Head-room that --init leaves.", rich_help_panel=_FILES)] = "10%",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.", rich_help_panel=_OUTPUT)
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report.", rich_help_panel=_OUTPUT)] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the tables as Markdown.", rich_help_panel=_OUTPUT)
    ] = None,
    gitlab: Annotated[
        Path | None, typer.Option(help="Write a GitLab code-quality report.", rich_help_panel=_OUTPUT)
    ] = None,
    github: Annotated[
        bool | None,
        typer.Option(
            "--github/--no-github",
            help="Print GitHub annotations and add to the job's summary [default: where GITHUB_ACTIONS is true].",
            rich_help_panel=_OUTPUT,
            show_default=False,
        ),
    ] = None,
    **preprocessing: Any,
) -> None:
    """Fail (exit 1) when a model breaks a budget or costs more than a baseline; exit 3 when it can't be told.

    Size, params, MACs and the memory bound follow from the file; nothing is run for them. Latency against a baseline is
    a paired verdict on an interval: pass, fail, or inconclusive. A limit of inf, or none for a text, takes back what a
    budget file says.

    Examples:

    - `n2n-edge gate student.onnx --max-mb 0.6 --max-memory-mb 4`
    - `n2n-edge gate student.onnx --device raspberry-pi-4 --max-latency-ms 20`
    - `n2n-edge gate student.onnx --device raspberry-pi-5 --runtime ncnn --max-latency-ms 20`
    - `n2n-edge gate student.onnx --baseline main.onnx --max-regression 5%`
    - `n2n-edge gate --init student.onnx --config n2n-edge.toml`
    """
    on_github = github if github is not None else os.environ.get("GITHUB_ACTIONS") == "true"
    options: dict[str, Any] = {
        "max_mb": max_mb, "max_params": max_params, "max_macs": max_macs, "max_memory_mb": max_memory_mb,
        "max_latency_ms": max_latency_ms, "min_score": min_score, "max_drop": max_drop, "data": data,
        "classes": classes, "task": task, "decode": decode, **_given(preprocessing), "allowed_ops": allowed_ops or (),
        "input_shape": input_shape, "bind": bind or (), "accept_expected": accept_expected, "baseline": baseline,
        "max_regression": max_regression or (), "static": static, "device": device, "target": target,
        "threads": threads, "providers": providers, "runtime": runtime, "max_time": max_time,
    }  # fmt: skip
    started = time.monotonic()
    try:
        if init:
            _init(models or [], options, headroom, config, as_json)
            return
        found = _checked(models or [], options, config, no_config, skip_unnamed, (junit, markdown, gitlab))
        _write(found, time.monotonic() - started, junit, markdown, gitlab)
    except N2NError as error:
        if on_github:
            from n2n_edge.gating.github import github_error

            print_commands([github_error(" ".join(error.on_command_line().split()))], on_stderr=True)
        raise
    _show(found, as_json, on_github)
    from n2n_edge.gating.check import exit_code_of

    raise typer.Exit(exit_code_of(found))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of preprocessing as the public function takes them; `none` takes back what a file says."""
    texts = {name: value for name, value in options.items() if value == "none"}
    return {**options, **numbers_of({**options, **dict.fromkeys(texts)}), **texts}


def _checked(
    models: list[Path],
    options: dict[str, Any],
    config: Path | None,
    no_config: bool,
    skip_unnamed: bool,
    files: "Sequence[Path | None]",
) -> "tuple[Gated, ...]":
    """Return what the public function says, once nothing that is read would be written over."""
    from n2n_edge.gating.budget_file import find_budget_file, read_budget_file
    from n2n_edge.runs.gate import gate as gate_files
    from n2n_edge.runs.gate import jobs_of
    from n2n_edge.writing import refuse_unwritable

    if no_config and config is not None:
        raise InputError(f"--config {config}: --no-config leaves it out; give one of them")
    budget_file = None
    if config is not None:
        budget_file = read_budget_file(config)
    elif not no_config:
        budget_file = find_budget_file(Path.cwd())
    jobs = jobs_of(models, options, budget_file)
    if skip_unnamed:
        for job in jobs:
            if job.settings.asks_nothing:
                print_warning(f"{job.model}: passed over, nothing is asked of it here")
        jobs = tuple(job for job in jobs if not job.settings.asks_nothing)
    read = [path for job in jobs for path in (job.model, job.settings.baseline)]
    refuse_unwritable(*files, inputs=[*read, None if budget_file is None else budget_file.path])
    if not jobs:
        return ()
    named = None if budget_file is None else budget_file.path
    found = gate_files(*(job.model for job in jobs), **options, config=named, on_message=say)
    say("")
    return found


def _init(models: list[Path], options: dict[str, Any], headroom: str, config: Path | None, as_json: bool) -> None:
    from n2n_edge.gating.budget_file import FILE_NAME
    from n2n_edge.gating.init_file import init_budgets
    from n2n_edge.gating.regression import parse_percent
    from n2n_edge.runs.gate import given_settings, scores

    if len(models) != 1:
        raise InputError(f"--init: {len(models)} models are given; give the one to write budgets for")
    share = parse_percent(headroom, "--headroom")
    path = config or Path(FILE_NAME)
    table = init_budgets(path, models[0], given_settings(options), share, scores, say)
    say("")
    if as_json:
        print_json({"schema_version": 1, "kind": "gate-init", "file": str(path), "table": table})
    else:
        for line in (f"written to {path}:", "", *table.splitlines()):
            print_line(line)


def _write(
    found: "Sequence[Gated]", seconds: float, junit: Path | None, markdown: Path | None, gitlab: Path | None
) -> None:
    import platform

    from n2n_edge.gating.gitlab import gitlab_report
    from n2n_edge.gating.junit import junit_report
    from n2n_edge.gating.markdown import gate_markdown
    from n2n_edge.writing import write_text

    files = (
        (junit, junit_report(found, platform.node(), seconds)),
        (markdown, gate_markdown(found)),
        (gitlab, gitlab_report(found)),
    )
    for path, text in files if found else ():
        if path is not None:
            try:
                write_text(path, text)
            except OSError as error:
                raise InputError(f"{path}: can't be written ({error.strerror}); give another path") from error


def _show(found: "Sequence[Gated]", as_json: bool, on_github: bool) -> None:
    from n2n_edge.gating.github import append_outputs, append_summary, github_annotations
    from n2n_edge.gating.json_document import gates_document

    if as_json:
        print_json(gates_document(found))
    else:
        _print(found)
    for gated in found:
        for note in gated.notes:
            print_line(f"note: {note}", on_stderr=True)
        for warning in gated.warnings:
            print_warning(str(warning))
    if on_github:
        print_commands(github_annotations(found), on_stderr=as_json)
        try:
            if os.environ.get("GITHUB_STEP_SUMMARY"):
                append_summary(found, Path(os.environ["GITHUB_STEP_SUMMARY"]))
            if os.environ.get("GITHUB_OUTPUT"):
                append_outputs(found, Path(os.environ["GITHUB_OUTPUT"]))
        except OSError as error:  # the verdict stands, whoever reads it
            print_warning(f"{error.filename}: can't be written ({error.strerror})")


def _print(found: "Sequence[Gated]") -> None:
    from rich.text import Text

    from n2n_edge.cli.console import Console
    from n2n_edge.gating.check import summary_of
    from n2n_edge.gating.terminal import check_table, outcome_text
    from n2n_edge.metrics.outcome import worst

    console = Console(width=None if sys.stdout.isatty() else 140)
    for gated in found:
        if len(found) > 1:
            console.print()
            console.print(Text(str(gated.model), style="bold"))
        console.print(check_table(gated.checks))
    console.print(outcome_text(summary_of(found), worst(one.outcome for one in found)))


with_settings(gate, [item for item in fields(CompressSettings) if item.name in PREPROCESSING_OPTIONS], behind="bind")
