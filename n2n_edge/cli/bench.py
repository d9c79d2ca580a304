"""`n2n-edge bench`: time ONNX models on this machine or a board, and predict them for a device."""

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.cli.output import print_error, print_json, print_line
from n2n_edge.cli.stage import say
from n2n_edge.errors import InputError, N2NError
from n2n_edge.foreign import encodable
from n2n_edge.metrics.figures import MB

if TYPE_CHECKING:
    import onnx_ir as ir

    from n2n_edge.devices.profile import Profile
    from n2n_edge.measure.options import BenchOptions
    from n2n_edge.measure.suite import Suite
    from n2n_edge.measure.target import Target
    from n2n_edge.report.bench_document import Benched, BenchJson

__all__ = ["bench"]

DEFAULT_THRESHOLD = "5%"
MOST_MB = 1e9

_NO_COSTS = "no params, MACs and memory bound"


def bench(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="ONNX files to time.", show_default=False)],
    device: Annotated[
        str,
        typer.Option(
            help="Profile name or .toml file: predicted for comparison; with --target ssh://, what the board is.",
            autocompletion=device_names,
        ),
    ] = "cpu",
    target: Annotated[
        str,
        typer.Option(
            help="Where to run: host; host-limited (this host with --device's cores and memory); or "
            "ssh://[user@]host[:port], a [/folder] and [?python=PATH] behind it."
        ),
    ] = "host",
    threads: Annotated[int | None, typer.Option(min=1, help="Intra-op threads [default: the usable cores].")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Size of a free batch axis.")] = 1,
    input_shape: Annotated[
        str | None,
        typer.Option(
            help="Sizes of the first input without its batch, such as 3x224x224, where models leave them free "
            "[default: those of the other models, what a student records, else 224]."
        ),
    ] = None,
    bind: Annotated[
        list[str] | None,
        typer.Option(
            help="Values of an input instead of random ones: scale=1.0 or sizes=640,640; of several models each takes "
            "those that it has. Repeatable."
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Runtime to time each model under: onnxruntime, ncnn, openvino; several in turns. Repeatable.",
            show_default="onnxruntime",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Images (as for compress) that conversions for other runtimes are proven on; else random inputs."
        ),
    ] = None,
    providers: Annotated[
        str | None, typer.Option(help="Execution providers in order, with commas between: tensorrt,cuda,cpu.")
    ] = None,
    provider_option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for the first provider; fp16=1 for half precision. Repeatable.")
    ] = None,
    streams: Annotated[
        int | None, typer.Option(min=1, help="Find the throughput of so many inferences at once, too.")
    ] = None,
    min_time: Annotated[float, typer.Option(min=0, help="Seconds to run each model at least.")] = 1.0,
    max_time: Annotated[float, typer.Option(help="Seconds after which a model that hasn't settled is stopped.")] = 10.0,
    timeout: Annotated[
        float, typer.Option(help="Seconds for loading and first run, after which a model counts as hung.")
    ] = 600.0,
    threshold: Annotated[
        str, typer.Option(help="Smallest difference between models that matters.")
    ] = DEFAULT_THRESHOLD,
    aa: Annotated[
        bool, typer.Option("--aa", help="Time the first model against itself, too: the noise floor.")
    ] = False,
    per_op: Annotated[bool, typer.Option("--per-op", help="Show where the time goes, by operator and layer.")] = False,
    max_memory_mb: Annotated[
        float | None, typer.Option(help="Limit of the worker's memory in MB; exit code 4 where it isn't enough.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the figures to a CSV file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables to a Markdown file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report to an HTML file.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the JSON document to a file.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Compare with a document of an earlier --save.")] = None,
) -> None:
    """Time ONNX models, each in a process of its own; several are timed in turns and compared with the first.

    Examples:

    - `n2n-edge bench student.onnx --per-op`
    - `n2n-edge bench teacher.onnx student.onnx --threads 1 --save bench.json`
    - `n2n-edge bench student.onnx --runtime onnxruntime --runtime ncnn --runtime openvino`
    - `n2n-edge bench student.onnx --target ssh://pi@raspberrypi.local --device raspberry-pi-4`
    """
    from n2n_edge.devices.registry import load_profile
    from n2n_edge.gating.regression import parse_percent
    from n2n_edge.graph.bind import bound_where_named
    from n2n_edge.graph.input_shape import at_one_size, parse_input_shape
    from n2n_edge.measure.runtimes import parse_runtimes
    from n2n_edge.measure.suite import run_suite
    from n2n_edge.metrics.runtimes import ONNXRUNTIME
    from n2n_edge.report.bench_document import bench_document
    from n2n_edge.report.bench_history import read_bench
    from n2n_edge.writing import refuse_unwritable

    runtimes = parse_runtimes(runtime or [ONNXRUNTIME])
    if providers is not None and runtimes != (ONNXRUNTIME,):
        raise InputError(f"--providers {providers}: they are ONNX Runtime's own; leave out --runtime, or them")
    if data is not None and len(models) > 1:
        raise InputError(f"--data {data}: for one model at a time, {len(models)} were given")
    profile = load_profile(device)
    allowed = parse_percent(threshold, "--threshold")
    if allowed == 0:
        raise InputError(f"--threshold {threshold}: must be more than 0%")
    refuse_unwritable(csv, markdown, html, save, inputs=models)
    earlier = read_bench(compare) if compare is not None else None
    options = _options(profile, target, threads, batch, providers, provider_option or [], (min_time, max_time), timeout)
    options = replace(options, bind=tuple(bind or ()))
    loaded, untold = _loaded(models)
    if loaded:
        loaded = dict(zip(loaded, bound_where_named(list(loaded.values()), options.bind), strict=True))
    asked = parse_input_shape(input_shape) if input_shape is not None else None
    sized = at_one_size([(path.name, model) for path, model in loaded.items()], asked)
    for note in sized.notes:
        print_line(f"note: {note}", on_stderr=True)
    options = replace(options, input_shape=sized.input_shape)
    with _target(target, profile, threads, max_memory_mb) as place, _samples(models[0], data, bind) as samples:
        suite = run_suite(
            models,
            options,
            place,
            threshold=allowed,
            with_itself=aa,
            streams=streams,
            runtimes=runtimes,
            samples=samples,
            watch=say,
        )
        say("")
        rows = _rows(suite, profile, place, options, loaded, untold)
        document = bench_document(suite, rows, place)
        failures = [entry.error for entry in suite.entries if entry.error is not None]
        if isinstance(suite.noise_floor, N2NError):
            failures.append(suite.noise_floor)
        if failures and all(entry.error is not None for entry in suite.entries) and len(suite.entries) == 1:
            raise failures[0]
        for error in failures:
            print_error(error)
        _write(document, suite, rows, csv, markdown, save)
        if html is not None:
            _write_html(document, html)
        if as_json:
            print_json(document)
        elif any(entry.error is None for entry in suite.entries):
            _print(suite, rows, place, per_op)
    if earlier is not None:
        _print_changes(earlier, document, as_json)
    if failures:
        raise typer.Exit(max(error.exit_code for error in failures))


def _samples(model: Path, data: str | None, bind: list[str] | None) -> "AbstractContextManager[Path | None]":
    """Return real inputs in a file, as long as the context lasts; none where no data are given."""
    if data is None:
        return nullcontext()
    from n2n_edge.runs.accuracy import TestData
    from n2n_edge.runs.export import real_samples

    return real_samples(model, TestData(data, bind=tuple(bind or ())))


def _options(
    profile: "Profile",
    target: str,
    threads: int | None,
    batch: int,
    providers: str | None,
    settings: list[str],
    time_s: tuple[float, float],
    timeout: float,
) -> "BenchOptions":
    from n2n_edge.latency.device_target import running_on
    from n2n_edge.measure.options import MOST_SECONDS, BenchOptions, parse_providers

    min_time, max_time = time_s
    for option, seconds, least in (
        ("--timeout", timeout, 1e-9),
        ("--max-time", max_time, 1e-9),
        ("--min-time", min_time, 0),
    ):
        if not least <= seconds <= MOST_SECONDS:
            raise InputError(
                f"{option} {seconds:g}: must be more than 0 and at most {MOST_SECONDS:.0f} seconds, a week"
            )
    if settings and providers is None:
        raise InputError(f"--provider-option {settings[0]}: of which provider? name it with --providers")
    names, provider_options = parse_providers(providers, tuple(settings)) if providers is not None else ((), {})
    threads, names = running_on(target, profile, threads, tuple(names))
    return BenchOptions(
        threads=threads,
        batch=batch,
        providers=names,
        provider_options=provider_options,
        min_time_s=min(min_time, max_time),
        max_time_s=max_time,
        timeout_s=timeout,
    )


def _target(name: str, profile: "Profile", threads: int | None, max_memory_mb: float | None) -> "Target":
    from n2n_edge.latency.device_target import open_place

    if max_memory_mb is not None and not 0 < max_memory_mb <= MOST_MB:
        raise InputError(f"--max-memory-mb {max_memory_mb:g}: must be a number above 0, and at most {MOST_MB:g}")
    limit_bytes = None if max_memory_mb is None else round(max_memory_mb * MB)
    return open_place(name, profile, threads, limit_bytes)


def _loaded(models: list[Path]) -> "tuple[dict[Path, ir.Model], dict[Path, InputError]]":
    """Return the models whose costs can be told, and why those of the others can't."""
    from n2n_edge.foreign import foreign_file
    from n2n_edge.graph.load import load_model
    from n2n_edge.graph.model_file import is_ort

    loaded, untold = {}, {}
    for path in models:
        if path.is_file() and not is_ort(path):
            try:  # the runtime is less strict: its times are good, whatever else can't be told of the file
                with foreign_file(path):
                    loaded[path] = load_model(path)
            except InputError as error:
                untold[path] = error
    return loaded, untold


def _rows(
    suite: "Suite",
    profile: "Profile",
    target: "Target",
    options: "BenchOptions",
    loaded: "dict[Path, ir.Model]",
    untold: dict[Path, InputError],
) -> "list[Benched]":
    from n2n_edge.graph.costs import costs
    from n2n_edge.latency.model import LatencyModel
    from n2n_edge.measure.measurement import alone_in_failing
    from n2n_edge.measure.suite import names_of_runs
    from n2n_edge.report.bench_document import Benched

    rows = []
    names = names_of_runs([(entry.path, entry.runtime) for entry in suite.entries])
    for name, entry in zip(names, suite.entries, strict=True):
        known, predicted, told_for = None, None, ""
        if entry.error is None and (entry.path in loaded or entry.path in untold):
            try:
                if entry.path in untold:
                    raise untold[entry.path]
                with alone_in_failing(str(entry.path)):
                    model = loaded[entry.path]
                    known = costs(model)
                    if not profile.is_host and target.provenance == "measured":
                        within = (
                            options.threads if options.threads is None or options.threads <= profile.cores else None
                        )
                        # every runtime is timed in float32
                        there = LatencyModel(profile.under(entry.runtime), within, "fp32")
                        estimate = there.estimate(model)
                        predicted = estimate.figure
                        told_for = f"{estimate.unit}, {estimate.precision}, {entry.runtime}"
            except N2NError as error:
                what = _NO_COSTS if known is None else "no prediction"
                print_line(f"{name}: warning: {what}: {error.on_command_line()}", on_stderr=True)
        rows.append(Benched(name, entry, known, None if predicted is None else profile.name, predicted, told_for))
    return rows


def _write(
    document: "BenchJson",
    suite: "Suite",
    rows: "list[Benched]",
    csv: Path | None,
    markdown: Path | None,
    save: Path | None,
) -> None:
    from n2n_edge.report.bench_files import bench_csv, bench_markdown

    if csv is not None:
        _write_text(csv, bench_csv(document))
    if markdown is not None:
        _write_text(markdown, bench_markdown(suite, rows, document))
    if save is not None:
        _write_text(save, json.dumps(encodable(document), indent=2, allow_nan=False) + "\n")


def _write_html(document: "BenchJson", file: Path) -> None:
    from n2n_edge.report.bench_html import render_bench_html

    _write_text(file, render_bench_html(document))


def _write_text(file: Path, text: str) -> None:
    from n2n_edge.writing import write_text

    try:
        write_text(file, text)
    except OSError as error:
        raise InputError(f"{file}: can't be written ({error}); give another path") from error


def _print(suite: "Suite", rows: "list[Benched]", target: "Target", per_op: bool) -> None:
    from n2n_edge.cli.console import Console
    from n2n_edge.report.bench_terminal import bench_on_terminal

    console = Console()
    for part in bench_on_terminal(suite, rows, target, per_op):
        console.print(part, soft_wrap=not hasattr(part, "columns"))


def _print_changes(earlier: "BenchJson", document: "BenchJson", as_json: bool) -> None:
    from n2n_edge.report.bench_history import changes_since

    changes = changes_since(earlier, document)
    if not changes:
        print_line("compared with the earlier document: no model is in both", on_stderr=as_json)
    for change in changes:
        print_line(change.words, on_stderr=as_json)
        for warning in change.warnings:
            print_line(f"{change.name}: warning: {warning}", on_stderr=as_json)
