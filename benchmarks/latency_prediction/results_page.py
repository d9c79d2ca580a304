"""The page of results: medians over boards, every table, and devices told by others."""

from collections.abc import Mapping

import numpy as np

from benchmarks.latency_prediction.judge import Judgement

__all__ = ["results_page"]

_HEAD = "| {} | models | median error | p90 error | within 10% | within 20% | rank correlation | coverage of 90% |"

_Judged = Mapping[str, Mapping[str, Judgement]]


def results_page(judged: _Judged, borrowed: Mapping[str, Judgement], choices: Mapping[str, str]) -> str:
    """Return the page as Markdown."""
    lines = ["Every figure is of models (or families) that the fit has not seen.", "", *_medians(judged)]
    for quantity in ("latency", "energy"):
        lines += [f"## {quantity.capitalize()}", "", _HEAD.format("table | predictor"), "| --- " * 9 + "|"]
        for key, ways in judged.items():
            if f", {quantity}, " in key:
                lines += [
                    f"| {key.replace(f'{quantity}, ', '')} | {way} | {_cells(each)} |" for way, each in ways.items()
                ]
        lines.append("")
    lines += ["## A device without data, from another one's rates scaled by data sheets", ""]
    lines += [_HEAD.format("predicted"), "| --- " * 8 + "|"]
    lines += [f"| {key} | {_cells(each)} |" for key, each in borrowed.items()]
    lines += ["", "## Unpacked multiply-accumulates and spilled bytes", ""]
    lines += [f"- {kind}: {told}" for kind, told in choices.items()]
    return "\n".join(lines) + "\n"


def _medians(judged: _Judged) -> list[str]:
    """Return medians over ncnn's tables of each table's median error, by kind."""
    kinds: dict[str, list[Mapping[str, Judgement]]] = {}
    for key, ways in judged.items():
        if ", latency, ncnn, " not in key:
            continue
        *_, threads, precision = key.split(", ")
        if ", Vulkan, " in key:
            names = ["GPUs"]
        else:
            told = "1 thread" if threads == "1 threads" else "more threads"
            names = (
                [f"CPUs, {told}, int8"] if precision == "int8" else [f"CPUs, {told}{x}" for x in ("", f", {precision}")]
            )
        for name in names:
            kinds.setdefault(name, []).append(ways)
    lines = ["## Medians over ncnn's tables", ""]
    lines += ["| | tables | kernel classes | coverage of 90% | MACs only | three-term roofline |", "| --- " * 6 + "|"]
    for name in sorted(kinds):
        ways = kinds[name]
        off = {way: float(np.median([each[way].median_error for each in ways])) for way in ways[0]}
        models = [each["kernel classes"].models for each in ways]
        held = float(np.average([each["kernel classes"].coverage for each in ways], weights=models))
        cells = f"{off['kernel classes']:.1%} | {held:.0%} | {off['MACs only']:.1%} | {off['three-term roofline']:.1%}"
        lines.append(f"| {name} | {len(ways)} | {cells} |")
    return [*lines, ""]


def _cells(each: Judgement) -> str:
    shares = [each.median_error, each.p90_error, each.within_10, each.within_20]
    return " | ".join(
        [
            str(each.models),
            *(f"{share:.1%}" for share in shares),
            f"{each.rank_correlation:.3f}",
            f"{each.coverage:.0%}",
        ]
    )
