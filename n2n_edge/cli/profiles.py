"""`n2n-edge profiles`: which devices are known, what is known of them, and adding one's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from n2n_edge.cli.completion import device_names
from n2n_edge.cli.output import print_json, print_line, print_warning
from n2n_edge.metrics.figures import SCHEMA_VERSION

if TYPE_CHECKING:
    from n2n_edge.devices.profile import Profile

__all__ = ["profiles_app"]

profiles_app = typer.Typer(help="Show the device profiles, and add your own.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@profiles_app.command("list")
def list_(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Only devices that have all these words: in name, chip, core or family.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List every device that --device can name, by family: the shipped profiles and your own.

    Examples:

    - `n2n-edge profiles list`
    - `n2n-edge profiles list rk3588`
    - `n2n-edge profiles list cortex-a55`
    """
    from n2n_edge.devices.registry import list_profiles, profile_errors, profiles_with

    profiles = profiles_with(list_profiles(), words or ())
    for error in profile_errors():
        print_warning(f"left out: {error.on_command_line()}")
    if as_json:
        documents = [profile.model_dump(mode="json", exclude_none=True) for profile in profiles]
        print_json({"schema_version": SCHEMA_VERSION, "profiles": documents})
        return
    from rich.table import Column, Table
    from rich.text import Text

    from n2n_edge.cli.console import Console

    table = Table(Column("name", no_wrap=True), "aliases", "core", "threads", "memory", "latency")
    families: dict[str, list[Profile]] = {}
    for profile in profiles:
        families.setdefault(profile.family or "your own", []).append(profile)
    for family, members in families.items():
        table.add_section()
        table.add_row(Text(family, style="bold"))
        for profile in members:
            table.add_row(
                f"  {profile.name}",
                ", ".join(profile.aliases),
                Text(profile.core or ""),
                f"{profile.default_threads} of {profile.cores}",
                f"{profile.memory_mb:.0f} MB",
                "measured" if profile.is_host else _predicted(profile),
            )
    if profiles:
        Console().print(table)
    else:
        print_line(
            f"no device has {' '.join(words or ())}; see `n2n-edge profiles list`, or make a profile of your own"
        )


@profiles_app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="Name or alias of a profile, or a .toml file.", autocompletion=device_names)
    ],
    as_json: JsonOption = False,
) -> None:
    """Show one profile, with the source of each figure.

    Examples:

    - `n2n-edge profiles show raspberry-pi-4`
    - `n2n-edge profiles show jetson --json`
    """
    from n2n_edge.devices.registry import load_profile

    profile = load_profile(name)
    document = profile.model_dump(mode="json", exclude_none=True)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "profile": document})
        return
    from rich.table import Column, Table
    from rich.text import Text

    from n2n_edge.cli.console import Console

    sources = document.pop("sources")
    calibrations = document.pop("calibrations", [])
    modes = document.pop("power_modes", {})
    table = Table("field", Column("value", overflow="fold"), Column("source", overflow="fold"))
    for field, value in document.items():
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        table.add_row(field, Text(shown), Text(sources.get(field, "")))
    for mode, limits in modes.items():
        shown = ", ".join(f"{limit} {value:g}" for limit, value in limits.items())
        table.add_row(f"power mode {mode}", Text(shown), Text(sources.get("power_modes", "")))
    Console().print(table)
    for each in calibrations:
        line = (
            f"calibrated {each['quantity']}: {each['threads']} threads, {'/'.join(each['precisions'])}, "
            f"{each['models']} models timed with {each['runtime']} on {each['measured_on']}, off by "
            f"{each['median_error']:.1%} (median), nine of ten {each['low_ratio']:.2f} to {each['high_ratio']:.2f} "
            f"times the prediction; {each['source']}"
        )
        Console().print(Text(line), soft_wrap=True)


@profiles_app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the new profile: small letters, digits and hyphens.")],
    like: Annotated[str, typer.Option(help="Profile to start from.", autocompletion=device_names)] = "raspberry-pi-4",
    out: Annotated[
        Path | None, typer.Option(help="File to write [default: NAME.toml in your own profiles].", show_default=False)
    ] = None,
) -> None:
    """Write a profile to fill in, a copy of a known one; it borrows that one's calibrations until it has its own.

    Examples:

    - `n2n-edge profiles new my-board --like raspberry-pi-4`
    - `n2n-edge profiles new my-board --like jetson --out my-board.toml`
    """
    from n2n_edge.calibration.own_profiles import new_profile

    print_line(new_profile(name, like, out))


@profiles_app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Profile files.", show_default=False)],
) -> None:
    """Check profile files; exit code 2 with the line and the field where one isn't valid.

    Examples:

    - `n2n-edge profiles validate my-board.toml`
    """
    from n2n_edge.devices.registry import read_profile

    for file in files:
        profile = read_profile(file)
        print_line(f"{file}: ok, {profile.name}, {len(profile.calibrations)} calibrations")


def _predicted(profile: "Profile") -> str:
    from n2n_edge.latency.basis import lender_of

    own = [each for each in profile.calibrations if each.quantity == "latency"]
    if not own:
        lender = lender_of(profile)
        return "from all boards, by its core" if lender is None else f"as {lender.name}, scaled"
    errors = sorted(each.median_error for each in own)
    span = f"{errors[0]:.0%}" if f"{errors[0]:.0%}" == f"{errors[-1]:.0%}" else f"{errors[0]:.0%} to {errors[-1]:.0%}"
    return f"{sum(each.models for each in own)} timings, off by {span}"
