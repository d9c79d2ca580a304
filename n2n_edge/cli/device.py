"""`n2n-edge device`: what a board has, what a measurement on it would miss, and how fast it really is."""

from math import isfinite
from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.cli.output import print_json, print_line
from n2n_edge.cli.stage import say
from n2n_edge.errors import InputError
from n2n_edge.metrics.figures import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from n2n_edge.calibration.calibrate import CalibrationRun
    from n2n_edge.measure.readiness import Readiness

__all__ = ["device_app"]

device_app = typer.Typer(help="Look at a board, and calibrate it.", no_args_is_help=True)


@device_app.command()
def check(
    target: Annotated[str, typer.Argument(help="host, or ssh://[user@]host[:port][/folder][?python=PATH].")] = "host",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Say what is there: Python, runtime, cores, memory, clocks, disk; and what is missing, with how to get it.

    Exit code 3 if models can't be timed there as it is.

    Examples:

    - `n2n-edge device check`
    - `n2n-edge device check ssh://pi@raspberrypi.local`
    """
    from n2n_edge.measure.readiness import readiness
    from n2n_edge.measure.ssh import open_target

    with open_target(target) as place:
        found = readiness(place)
    if as_json:
        document = {"schema_version": SCHEMA_VERSION, "target": target, **found.to_json()}
        print_json(document)
    else:
        _print(target, found)
    if not found.ready:
        raise typer.Exit(3)


@device_app.command()
def calibrate(
    target: Annotated[
        str, typer.Argument(help="ssh://[user@]host[:port][/folder][?python=PATH].", show_default=False)
    ] = "",
    host: Annotated[bool, typer.Option("--host", help="Calibrate this machine.")] = False,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Which device it is: a known profile, or the name of a new one "
            "[default: cpu with --host, else a new one named after the board].",
            autocompletion=device_names,
        ),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Numbers of CPU threads, with commas [default: 1 and the profile's].")
    ] = None,
    minutes: Annotated[float, typer.Option(help="Time for the timings.")] = 4.5,
    measured: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of timing models: a timing that you have of the board of --profile, such as "
            "model.onnx=12.3ms, with --threads, one number. Repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Time a pack of small models on a board, fit its profile, and say how much better predictions are.

    The profile goes to your own profiles, which come before the shipped ones.

    Examples:

    - `n2n-edge device calibrate ssh://pi@raspberrypi.local --profile raspberry-pi-4`
    - `n2n-edge device calibrate --host --threads 1`
    - `n2n-edge device calibrate --profile cortex-a73 --measured teacher.onnx=48.5ms --measured student.onnx=20.1ms`
    """
    from n2n_edge.calibration.calibrate import calibrate as run_calibration
    from n2n_edge.calibration.own_profiles import check_writable, profile_to_calibrate, save_calibrations
    from n2n_edge.measure.ssh import open_target

    if measured:
        if host or target or profile is None:
            raise InputError("--measured: name the board by --profile, without an address or --host")
        _from_timings(profile, measured, threads, as_json)
        return
    if host == bool(target):
        raise InputError("device calibrate: give either ssh://user@board or --host")
    if not (minutes > 0 and isfinite(minutes)):
        raise InputError(f"--minutes {minutes:g}: must be a number above 0")
    if target and not target.startswith("ssh:"):
        raise InputError(f"{target}: not a board; give ssh://user@board, or --host for this machine")
    with open_target(target or "host") as place:
        source = profile_to_calibrate(profile, None if host else place)
        known = source.profile
        check_writable(source.path)
        default = sorted({1, known.default_threads}) if known.compute_unit == "cpu" else [known.default_threads]
        counts = default if threads is None else _counts(threads)
        found = run_calibration(place, known, counts, minutes=minutes, say=say)
    say("")
    path = save_calibrations(source, found.calibrations)
    if as_json:
        print_json(_calibration_json(known.name, str(path), found))
    else:
        _print_calibration(known.name, str(path), found)


def _from_timings(name: str, measured: "Sequence[str]", threads: str | None, as_json: bool) -> None:
    """Write a profile that knows the timings that somebody has, and say what they change."""
    from n2n_edge.calibration.own_profiles import check_writable, profile_to_calibrate, save_calibrations
    from n2n_edge.calibration.timings import parse_timing, with_timings
    from n2n_edge.devices.registry import load_profile

    counts = None if threads is None else _counts(threads)
    if counts is not None and len(counts) > 1:
        raise InputError(f"--threads {threads}: timings given by --measured are of one number of threads")
    load_profile(name)
    source = profile_to_calibrate(name, None)
    check_writable(source.path)
    timings = [parse_timing(each) for each in measured]
    changed = with_timings(source.profile, timings, counts[0] if counts else None)
    found = changed.calibrations[0]
    path = save_calibrations(source, [found])
    if as_json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "profile": changed.name,
                "file": str(path),
                "calibrations": [found.model_dump(mode="json")],
                "models": [{"name": each.name, "threads": found.threads, "measured_ms": each.ms} for each in timings],
                "failures": [],
            }
        )
        return
    print_line(f"{len(timings)} timings, {found.threads} threads: nine of ten further models lie between")
    print_line(f"{found.low_ratio:.2f} and {found.high_ratio:.2f} times the prediction")
    print_line(f"profile: {path}")


def _counts(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--threads {text}: not numbers of threads; give such as 1,4")
    return sorted({int(part) for part in parts})


def _calibration_json(name: str, path: str, found: "CalibrationRun") -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "profile": name,
        "file": path,
        "calibrations": [
            {
                **calibration.model_dump(mode="json"),
                "median_error_before": round(found.errors(calibration.threads)[0], 4),
            }
            for calibration in found.calibrations
        ],
        "models": [
            {
                "name": row.name,
                "threads": row.threads,
                "measured_ms": round(row.measured_ms, 6),
                "predicted_before_ms": round(row.before_ms, 6),
                "predicted_ms": round(row.after_ms, 6),
            }
            for row in found.timed
        ],
        "failures": list(found.failures),
    }


def _print_calibration(name: str, path: str, found: "CalibrationRun") -> None:
    from rich.table import Table
    from rich.text import Text

    from n2n_edge.cli.console import Console

    console = Console()
    table = Table("threads", "models", "error before", "error now", "nine of ten", title=name, title_justify="left")
    for calibration in found.calibrations:
        before, now = found.errors(calibration.threads)
        table.add_row(
            str(calibration.threads), str(calibration.models), f"{before:.1%}", f"{now:.1%}",
            f"{calibration.low_ratio:.2f} to {calibration.high_ratio:.2f} times the prediction",
        )  # fmt: skip
    console.print(table)
    console.print("errors are medians; now: of each model by a fit that has not seen it", highlight=False)
    for failure in found.failures:
        console.print(Text(f"left out: {failure}"), soft_wrap=True, style="yellow")
    console.print(Text(f"profile: {path}"), soft_wrap=True)


def _print(target: str, found: "Readiness") -> None:
    from rich.table import Table
    from rich.text import Text

    from n2n_edge.cli.console import Console

    console = Console()
    table = Table("", target, title="what is there", title_justify="left")
    for name, value in found.facts.items():
        table.add_row(name, Text(value))
    console.print(table)
    for problem in found.missing:
        console.print(Text(f"missing: {problem.what}; {problem.remedy}"), soft_wrap=True, style="bold red")
    for warning in found.warnings:
        console.print(Text(f"warning: {warning}"), soft_wrap=True)
    console.print(
        Text.assemble(("ready", "green"), ": models can be timed here")
        if found.ready
        else Text("not ready", style="bold red")
    )
