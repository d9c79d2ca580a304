"""The public names: examples of their docstrings are run, and the reference lists each of them."""

import doctest
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
import typer

import n2n_edge
from n2n_edge._example import teacher_path
from n2n_edge.cli.app import app
from n2n_edge.data import source_digits
from n2n_edge.data.samples import Samples, Source
from n2n_edge.runs.gate import gate
from tests.quantized import floats, quantized

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "python.md"
NAMES = [name for name in n2n_edge.__all__ if name != "__version__"]
WITHOUT_EXAMPLE = {
    "ChannelGroup", "Costs", "DistillSettings", "Gated", "Inspection", "Layer", "Measurement", "Op", "Estimate",
    "Evaluation", "JoinedTask", "LabelLoss", "Meter", "QuantizationReport", "Task", "Verdict", "Weight", "register_op",
    "Export", "Exported", "NotShippedError",
}  # fmt: skip
"""Results, which the examples of functions show, and what the page of the reference shows."""
TRAINS = {"compress", "distill"}
OPENS_A_RUN = {"Run", "RunTrial", "Trial"}
NO_SETTINGS = {
    "out", "resume", "tensorboard", "as_json", "export", "teacher_option", "context", "callbacks", "budgets",
    "min_accuracy",
}  # fmt: skip


def public(name: str) -> object:
    return gate if name == "gate" else getattr(n2n_edge, name)  # the package of this name is callable


def run_examples(name: str, **names: object) -> int:
    """Run the examples of a docstring, and return how many there are."""
    globs = {"n2n_edge": n2n_edge, "example_teacher": teacher_path(), **names}
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(public(name)) or "", globs, name, None, 0)
    said: list[str] = []
    failed, tried = doctest.DocTestRunner(verbose=False).run(found, out=said.append)
    assert not failed, "".join(said)
    return tried


@pytest.fixture(autouse=True, scope="module")
def few_digits(quick_workers: None) -> Iterator[None]:
    """A sixth of the built-in images."""
    read = source_digits.read

    def some(spec: str, input_shape: tuple[int, int, int]) -> Source:
        source = read(spec, input_shape)
        parts = {name: getattr(source, name) for name in ("train", "validation", "test")}
        return replace(source, **{name: Samples(part.images[::6], part.labels[::6]) for name, part in parts.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_digits, "read", some)
        yield


@pytest.fixture(scope="module")
def example_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the example of `compress`."""
    pytest.importorskip("sklearn", reason="the built-in example needs scikit-learn")
    folder = tmp_path_factory.mktemp("reference") / "run"
    assert run_examples("compress", folder=folder)
    return folder


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {*WITHOUT_EXAMPLE, *TRAINS, *OPENS_A_RUN}])
def test_the_example_of_a_public_name_runs(name: str, tmp_path: Path) -> None:
    given: dict[str, object] = {"folder": tmp_path}
    if name == "dequantize":
        given["quantized_model"] = quantized(floats(tmp_path / "float.onnx"), "pairs")
    assert run_examples(name, **given)


@pytest.mark.parametrize("name", sorted(OPENS_A_RUN))
def test_an_example_that_opens_a_run_runs(name: str, example_run: Path) -> None:
    assert run_examples(name, example_run=example_run)


def test_the_example_of_distill_runs() -> None:
    pytest.importorskip("sklearn", reason="the built-in example needs scikit-learn")
    assert run_examples("distill")


def test_a_student_trained_elsewhere_goes_back_into_its_run(example_run: Path) -> None:
    import torch

    run = n2n_edge.Run.open(example_run)
    module = n2n_edge.load_student(run.student)
    names = dict(module.named_parameters())
    assert "conv1.weight" in names
    with torch.no_grad():
        names["conv1.weight"].mul_(1.001)
    shipped = run.ship(module)
    assert shipped.folder == example_run / "retrained"
    assert shipped.met
    assert shipped.student.read_bytes() != run.student.read_bytes()
    again = n2n_edge.load_student(shipped.student)
    torch.testing.assert_close(again.state_dict(), module.state_dict())
    with pytest.raises(n2n_edge.N2NError, match=r"isn't the run's student, 'conv1\.weight' differs"):
        run.ship(torch.nn.Sequential(torch.nn.Linear(2, 2)), out=example_run / "other")


def test_the_page_names_every_public_name() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert not [name for name in NAMES if not re.search(rf"`{name}`", page)]


def test_compress_the_settings_and_the_command_are_the_same() -> None:
    settings = {item.name: item for item in fields(n2n_edge.CompressSettings)}
    keywords = inspect.signature(n2n_edge.compress).parameters
    assert set(keywords) - NO_SETTINGS == set(settings)
    assert {name: keywords[name].default for name in settings} == {n: item.default for n, item in settings.items()}
    assert all(each.kind is each.KEYWORD_ONLY for name, each in keywords.items() if name not in ("teacher", "data"))
    command = typer.main.get_command(app).commands["compress"]  # type: ignore[attr-defined]
    options = {each.name: each for each in command.params}
    assert set(options) - NO_SETTINGS - {"help"} == set(settings) - {"threads"}
    for name, item in settings.items():
        if name != "threads":
            assert options[name].help == item.metadata["help"]
            assert options[name].default in (item.default, None)
