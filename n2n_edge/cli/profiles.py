"""`n2n-edge profiles`: which devices are known, and what is known of them."""

import json
from typing import Annotated

import typer

from n2n_edge.figures import SCHEMA_VERSION

__all__ = ["profiles_app"]

profiles_app = typer.Typer(help="Show the device profiles.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@profiles_app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List every device that --device can name: the shipped profiles and your own."""
    from n2n_edge.devices import list_profiles

    profiles = list_profiles()
    if as_json:
        documents = [profile.model_dump(mode="json", exclude_none=True) for profile in profiles]
        print(json.dumps({"schema_version": SCHEMA_VERSION, "profiles": documents}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "aliases", "threads", "memory MB", "GFLOP/s", "GB/s", "latency is")
    for profile in profiles:
        predicted = "analytic" if profile.calibration is None else "calibrated"
        table.add_row(
            profile.name,
            ", ".join(profile.aliases),
            f"{profile.default_threads} of {profile.cores}",
            f"{profile.memory_mb:.0f}",
            f"{profile.peak_gflops:g} ({profile.compute_unit})",
            f"{profile.bandwidth_gb_s:g}",
            "measured" if profile.is_host else predicted,
        )
    Console().print(table)


@profiles_app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name or alias of a profile, or a .toml file.")],
    as_json: JsonOption = False,
) -> None:
    """Show one profile, with the source of each figure."""
    from n2n_edge.devices import load_profile

    profile = load_profile(name)
    document = profile.model_dump(mode="json", exclude_none=True)
    if as_json:
        print(json.dumps({"schema_version": SCHEMA_VERSION, "profile": document}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    sources = document.pop("sources")
    calibration = document.pop("calibration", {})
    table = Table("field", "value", "source")
    for field, value in document.items():
        shown = ", ".join(value) if isinstance(value, list) else str(value)
        table.add_row(field, Text(shown), Text(sources.get(field, "")))
    for field, value in calibration.items():
        table.add_row(f"calibration.{field}", Text(str(value)), "")
    Console().print(table)
