"""The table of boards in the documentation, made of the profiles that ship.

``python -m benchmarks.latency_prediction.boards_page`` from the repository's root writes ``docs/reference/boards.md``.
"""

from pathlib import Path

from n2n_edge.devices.profile import Profile
from n2n_edge.devices.registry import read_profile

__all__ = ["PAGE", "boards_page"]

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reference" / "boards.md"

HEAD = (
    "# Boards\n\n"
    "Every profile that ships, with what its predictions rest on. This page is generated from `profiles/` "
    "(`python -m benchmarks.latency_prediction.boards_page`).\n\n"
    "*Error* is the median of networks that the fit had not seen, *interval* what nine of ten lie between, "
    "as multiples of the prediction, both under the runtime that was timed (`--runtime ncnn`; for others it is wider). "
    "Threads and precision are those of the timings: ncnn calculates in fp16 on cores "
    "that can "
    "(Armv8.2). Boards without timings are told by all boards together ([prediction](../prediction.md)); "
    "[a board that isn't listed](../howto/unlisted-board.md) is, too.\n"
)


def main() -> None:
    """Write the page."""
    PAGE.write_text(boards_page(), encoding="utf-8")


def boards_page() -> str:
    """Return the page as Markdown."""
    profiles = [read_profile(path) for path in sorted((ROOT / "profiles").glob("*.toml"))]
    families: dict[str, list[Profile]] = {}
    for profile in sorted(profiles, key=lambda each: (each.family or "", each.name)):
        if not profile.is_host:
            families.setdefault(profile.family or "", []).append(profile)
    lines = [HEAD]
    for family, members in families.items():
        lines += [
            f"## {family}",
            "",
            "| profile | core | evidence: runtime, threads, precision, timings | error | interval |",
        ]
        lines.append("| --- " * 5 + "|")
        for profile in members:
            lines += _rows(profile)
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _rows(profile: Profile) -> list[str]:
    own = [each for each in profile.calibrations if each.quantity == "latency"]
    name, core = f"`{profile.name}`", profile.core or ""
    if not own:
        return [f"| {name} | {core} | all boards together | | |"]
    rows = []
    for each in own:
        unit = "GPU" if profile.compute_unit == "gpu" else str(each.threads)
        evidence = f"{each.runtime}, {unit}, {'/'.join(each.precisions)}, {each.models}"
        span = f"{each.low_ratio:.2f} to {each.high_ratio:.2f}"
        rows.append(f"| {name} | {core} | {evidence} | {each.median_error:.1%} | {span} |")
        name = core = ""
    return rows


if __name__ == "__main__":
    main()
