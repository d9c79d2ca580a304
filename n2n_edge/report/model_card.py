"""The model card: what the student is, for whoever receives the file without the report."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from n2n_edge.metrics.scores import metric_title
from n2n_edge.report.comparison import (
    VERDICT_WORDS,
    Cell,
    budget_name,
    cell_of,
    chosen_text,
    comparison_rows,
    device_names,
    device_text,
    figure_of,
    outcome_of,
    provenances_of,
)
from n2n_edge.report.conditions import condition_table
from n2n_edge.report.document import RunReport
from n2n_edge.report.html import facts_of
from n2n_edge.report.quantization import precision_words
from n2n_edge.report.score import metric_of
from n2n_edge.writing import markdown_code, markdown_text, write_text

__all__ = ["render_model_card", "write_model_card"]


def write_model_card(document: RunReport, path: Path) -> None:
    """Write the model card of the student to `path` as Markdown."""
    write_text(path, render_model_card(document))


def render_model_card(document: RunReport) -> str:
    """Return the model card as Markdown."""
    sections = [
        _opening(document),
        _figures(document),
        _budgets(document),
        _conditions(document),
        _making(document),
        _use(document),
        _limits(document),
        f"## Made again by\n\n{_block(_portable(document['command']), 'sh')}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _block(text: str, language: str) -> str:
    """Return lines of code, fenced so that none of them ends the block."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _chosen(document: RunReport) -> str:
    """Say which candidate was chosen by hand, its run by the folder's name alone."""
    if "chosen" not in document:
        return ""
    run = document["chosen"]["run"]
    return chosen_text(document).replace(run, _file_name(run))


def _opening(document: RunReport) -> str:
    devices, chosen = markdown_text(device_names(document)), markdown_text(_chosen(document))
    return (
        f"# Student of {markdown_text(_file_name(document['teacher']['path']))} for {devices}\n\n"
        f"A smaller network made from the teacher {markdown_code(_file_name(document['teacher']['path']))} by n2n-edge "
        f"{document['n2n_edge_version']} for {devices} ({markdown_text(device_text(document))}), "
        f"{document['created']}." + (f" {chosen}" if chosen else "")
    )


def _figures(document: RunReport) -> str:
    rows = [
        (markdown_text(row.name), _words(row.teacher), _words(row.student), row.change or "")
        for row in comparison_rows(document)
    ]
    meanings = "; ".join(f"*{name}*: {words}" for name, words in provenances_of(document).items() if name != words)
    table = _table(("figure", "teacher", "student", "change"), rows)
    bracketed = "In brackets: the 95% interval of the difference between the two on the same test images."
    below = [f"{meanings}." if meanings else "", bracketed if "low" in document.get("difference", {}) else ""]
    return "\n\n".join(["## Figures", table, *(text for text in below if text)])


def _budgets(document: RunReport) -> str:
    if not document["budgets"]:
        return ""
    rows = [
        (
            budget_name(budget, f"`{budget['option']} {budget['limit']:.10g}`"),
            _words(cell_of(figure_of(budget["reached"]))),
            VERDICT_WORDS[outcome_of(budget)] if budget["met"] else f"**{VERDICT_WORDS[outcome_of(budget)]}**",
        )
        for budget in document["budgets"]
    ]
    return f"## Budgets\n\n{_table(('budget', 'reached', 'verdict'), rows)}"


def _conditions(document: RunReport) -> str:
    if "conditions" not in document:
        return ""
    words = condition_table(document["conditions"])
    head = ("severity", *(str(severity) for severity in words["severities"]))
    table = _table(head, [tuple(map(markdown_text, (name, *cells))) for name, cells in words["rows"]])
    return f"## Under other conditions\n\n{markdown_text(words['title'])}:\n\n{table}"


def _making(document: RunReport) -> str:
    search, architecture, training = document["search"], document["architecture"], document["training"]
    shrunk = [group for group in architecture["groups"] if group["before"] != group["after"]]
    removed = ", ".join(markdown_code(name) for name in architecture["removed"]) or "none"
    widths = (
        ", ".join(f"{markdown_code(group['name'])} {group['before']} to {group['after']}" for group in shrunk) or "none"
    )
    lines = [
        f"- Search: policy {search['policy']}, effort {search['effort']}, seed {search['seed']}, "
        f"{len(search['candidates'])} candidates.",
        f"- Layers removed: {removed}.",
        *(
            f"- Layers merged into one: {' + '.join(map(markdown_code, run))}."
            for run in architecture.get("merged", [])
        ),
        f"- Channel groups shrunk: {widths}.",
        *_precision(document),
        f"- Training: distilled from the teacher for {len(training['epochs'])} epochs"
        + (f", weights of epoch {training['best_epoch']}." if training["best_epoch"] is not None else "."),
        *(f"- Data, {name}: {markdown_text(value)}" for name, value in facts_of(_named(document["data"])).items()),
    ]
    return "## How it was made\n\n" + "\n".join(lines)


def _precision(document: RunReport) -> list[str]:
    words = precision_words(document)
    if words is None:
        return []
    steps = "; ".join(f"{step.name}: {step.drop}" for step in words.steps)
    return [f"- Precision: {markdown_text(words.outcome)} Score by step, on validation images: {markdown_text(steps)}."]


def _use(document: RunReport) -> str:
    parity = document["parity"]
    same = f", the same class in {100 * parity['top1_agreement']:.4g}%" if parity["top1_agreement"] is not None else ""
    return (
        "## Use\n\n"
        "```python\n"
        "import onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("student.onnx")\n'
        "outputs = session.run(None, {session.get_inputs()[0].name: batch})\n"
        "```\n\n"
        f"{_preprocessing(document['data'])}\n\n"
        "Inputs have the teacher's shape, batch axis included. "
        f"The file agrees with the trained network on {parity['n']} inputs: largest relative error "
        f"{parity['max_relative_error']:.2g}{same}."
    )


def _preprocessing(data: Mapping[str, object]) -> str:
    """Return how an image becomes an input: size, layout, order of colours, scaling, mean and standard deviation."""
    recorded = data.get("preprocessing")
    if isinstance(recorded, Mapping):
        return _recorded(recorded)
    mean, std, shape = (_numbers(data.get(name)) for name in ("mean", "std", "input_shape"))
    if not mean or len(mean) != len(std):
        return "Inputs have the teacher's shape and normalisation; the batch axis is free."
    channels = len(mean)
    size = f"N x {' x '.join(f'{each:g}' for each in shape)}" if shape else "the teacher's shape"
    orders = {1: "one channel, grey", 3: "colours in the order red, green, blue, as the images were read"}
    lines = [
        f"float32 of {size} (images, channels, height, width; the number of images is free)",
        orders.get(channels, f"{channels} channels in the order of the data"),
        "images of other proportions were cut to their centre, those of another size scaled bilinearly",
        "pixels of 0 to 255 divided by 255, then `(x - mean) / std` by channel: "
        f"mean {_listed(mean)}; std {_listed(std)}",
    ]
    return "Input:\n\n" + "\n".join(f"- {line}" for line in lines)


def _recorded(preprocessing: Mapping[str, object]) -> str:
    from n2n_edge.data.preprocessing import Preprocessing

    words = Preprocessing.from_json(preprocessing, "the report's preprocessing").words()
    code = (
        "import n2n_edge\n\n"
        'preprocessing = n2n_edge.Preprocessing.of("student.onnx")\n'
        'batch = preprocessing.apply("photo.jpg")  # one image; preprocessing.inputs takes several of the right size'
    )
    return f"Input: {markdown_text(words)}. The file records it, so `batch` is:\n\n{_block(code, 'python')}"


def _numbers(value: object) -> list[float]:
    if not isinstance(value, list) or not all(isinstance(each, int | float) for each in value):
        return []
    return [float(each) for each in value]


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _file_name(path: str) -> str:
    """Return the last part of a path, of Windows too: where it lay concerns nobody who gets the file."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _named(data: Mapping[str, object]) -> dict[str, object]:
    return {
        name: _file_name(value) if name == "spec" and isinstance(value, str) else value for name, value in data.items()
    }


def _portable(command: str) -> str:
    """Return a command with files by their names alone."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command
    return shlex.join(
        _file_name(word) if word.startswith("/") or re.match(r"[A-Za-z]:[\\/]", word) else word for word in words
    )


def _limits(document: RunReport) -> str:
    lines = [
        "- It inherits the teacher's limits: what the teacher was not trained for, the student can't do either.",
        f"- {metric_title(metric_of(document))} was taken on the data named above; on other data it may differ more "
        "than the teacher's does.",
        *(f"- {markdown_text(warning)}" for warning in document["warnings"]),
    ]
    notes = [f"- {markdown_text(note)}" for note in document.get("notes", [])]
    resting = "\n\n## What the figures rest on\n\n" + "\n".join(notes) if notes else ""
    return "## Limits\n\n" + "\n".join(lines) + resting


def _words(cell: Cell | None) -> str:
    return markdown_text(f"{cell.value} ({cell.note})") if cell is not None else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
