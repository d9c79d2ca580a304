import json
import struct
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import typer
from typer.testing import CliRunner, Result

from n2n_edge.cli.bench import bench
from n2n_edge.cli.report import report
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from tests.cli.outputs import document_of
from tests.measure.small_models import write_conv_model, write_gemm_model
from tests.report.pages import Page, chart_of
from tests.report.sample import sample_document

ROOT = Path(__file__).resolve().parents[2]

app = typer.Typer()
app.command()(report)
bench_app = typer.Typer()
bench_app.command()(bench)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "run"
    found.mkdir()
    (found / "report.json").write_text(json.dumps(sample_document()))
    return found


@pytest.fixture(scope="module")
def bench_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document of a real bench of two models, with its page written directly beside it as direct.html."""
    place = tmp_path_factory.mktemp("bench")
    first, second = write_conv_model(place / "first.onnx"), write_gemm_model(place / "second<b>.onnx", 64)
    arguments = [first, second, place / "gone.onnx", "--min-time", "0", "--max-time", "0.2", "--threads", "1"]
    arguments += ["--aa", "--device", "raspberry-pi-4", "--streams", "2"]
    arguments += ["--save", place / "bench.json", "--html", place / "direct.html"]
    result = CliRunner().invoke(bench_app, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output  # of the model that isn't there
    return place / "bench.json"


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_the_page_of_a_run_is_written_anew(folder: Path) -> None:
    result = run(folder)
    assert result.exit_code == 0, result.output
    page = folder / "report.html"
    assert str(page) in result.stdout
    assert "The front" in Page(page.read_text()).words
    assert [path.name for path in folder.iterdir() if path.name.endswith(".part")] == []


def test_the_document_itself_will_do_as_well(folder: Path) -> None:
    assert run(folder / "report.json").exit_code == 0
    assert (folder / "report.html").is_file()


def test_pictures_are_wide_enough_for_a_slide(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="pictures need the extra [png]")
    slides = tmp_path / "new" / "slides"
    document = document_of(run(folder, "--png", slides, "--json"))
    assert document["report"] == str(folder / "report.html")
    assert {Path(picture) for picture in document["pictures"]} == set(slides.iterdir())
    names = {path.stem for path in slides.iterdir()}
    assert {"candidates-params", "candidates-latency_ms", "reward", "entropy", "layers", "training", "loss"} <= names
    sizes = [png_size(path) for path in slides.iterdir()]
    assert all(width == 1920 and 900 < height < 2400 for width, height in sizes)


def test_a_missing_package_is_named_in_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    result = run(folder, "--png", tmp_path / "slides")
    assert isinstance(result.exception, UnsuitableEnvironmentError)
    assert 'pip install "n2n-edge[png]"' in str(result.exception)
    assert not (tmp_path / "slides").exists()


def test_a_system_without_fonts_is_told_so(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resvg = pytest.importorskip("resvg_py", reason="pictures need the extra [png]")
    draw = resvg.svg_to_bytes
    monkeypatch.setattr(resvg, "svg_to_bytes", lambda **given: draw(**given, skip_system_fonts=True))
    result = run(folder, "--png", tmp_path / "slides")
    assert isinstance(result.exception, UnsuitableEnvironmentError)
    assert "font" in str(result.exception)


def test_it_opens_in_the_browser(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    assert run(folder, "--open").exit_code == 0
    assert opened == [(folder / "report.html").as_uri()]


def test_without_a_browser_the_page_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    result = run(folder, "--open")
    assert isinstance(result.exception, UnsuitableEnvironmentError)
    assert str(folder / "report.html") in str(result.exception)
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (None, None, "not the folder of a run"),
        ("report.json", "{", "can't be read as JSON"),
        ("report.json", "[1]", "not a report"),
        ("report.json", '{"schema_version": 1}', "not a report"),
        ("report.json", json.dumps({**sample_document(3), "schema_version": 99}), "of version 99"),
        ("report.json", json.dumps({**sample_document(3), "teacher": {}}), "not a complete report"),
        ("report.json", json.dumps({**sample_document(3), "search": {"candidates": [{}]}}), "not a complete report"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, name: str | None, text: str | None, words: str) -> None:
    if name is not None and text is not None:
        (tmp_path / name).write_text(text)
    result = run(tmp_path)
    assert isinstance(result.exception, InputError), result.output
    assert words in str(result.exception)
    assert not (tmp_path / "report.html").exists()


def test_a_run_that_is_not_finished_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").touch()
    result = run(tmp_path)
    assert isinstance(result.exception, InputError)
    assert "--resume" in str(result.exception)


def test_the_command_works_without_torch_and_fails_in_one_line(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from n2n_edge.cli.app import main; sys.argv[0] = 'n2n-edge'; main()"
    )

    def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
        return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=120)

    done = command("report", folder)
    assert (done.returncode, done.stderr) == (0, "")
    empty = tmp_path / "empty"
    empty.mkdir()
    failed = command("report", empty)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert str(empty) in failed.stderr


def test_a_bench_has_a_page_beside_its_document(bench_json: Path) -> None:
    result = run(bench_json)
    assert result.exit_code == 0, result.output
    html = bench_json.with_suffix(".html").read_text()
    assert html == (bench_json.parent / "direct.html").read_text()
    page = Page(html)
    assert page.misplaced == []
    assert "b" not in {tag for tag, _ in page.tags}
    for words in ("Median", "second<b>.onnx", "noise floor", "RSS growth", "Arena in use", "Inferences a second",
                  "Kind of operator", "gone.onnx could not be timed", "predicted, not measured"):  # fmt: skip
        assert words in page.words
    document = json.loads(bench_json.read_text())
    assert document["environment"]["cpu"] in page.words
    assert all(model["sha256"] in page.words for model in document["models"] if "sha256" in model)


def test_a_bench_is_drawn_with_intervals_ratios_and_histograms(bench_json: Path) -> None:
    run(bench_json)
    html = bench_json.with_suffix(".html").read_text()
    models = [model for model in json.loads(bench_json.read_text())["models"] if "p50_ms" in model]
    latency, ratios = chart_of(html, "latency"), chart_of(html, "ratios")
    assert latency.count('class="median"') == latency.count('class="line interval"') == len(models)
    assert ratios.count('class="median"') == len(models)  # the others, and the first against itself
    assert 'class="rule one"' in ratios
    for place, model in enumerate(models):
        chart = chart_of(html, f"times-{place + 1}")
        assert chart.count('<rect class="count"') == len(model["histogram"]["counts"])
        assert sum(model["histogram"]["counts"]) + model["histogram"]["beyond"] == model["n"]


def test_the_document_with_its_histogram_keeps_to_the_schema(bench_json: Path) -> None:
    schema = json.loads((ROOT / "docs/schemas/bench.json").read_text())
    document = json.loads(bench_json.read_text())
    jsonschema.validate(document, schema)
    assert "histogram" in document["models"][0]


def test_an_older_bench_without_histograms_has_a_page(bench_json: Path, tmp_path: Path) -> None:
    document = json.loads(bench_json.read_text())
    for model in document["models"]:
        model.pop("histogram", None)
    older = tmp_path / "older.json"
    older.write_text(json.dumps(document))
    assert run(older).exit_code == 0
    assert "Median time of a run" in older.with_suffix(".html").read_text()


def test_a_bench_has_pictures_too(bench_json: Path, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py", reason="pictures need the extra [png]")
    result = run(bench_json, "--png", tmp_path)
    assert result.exit_code == 0, result.output
    assert {"latency", "ratios", "times-1", "times-2"} == {path.stem for path in tmp_path.glob("*.png")}
    assert {png_size(path)[0] for path in tmp_path.glob("*.png")} == {1920}


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_timed(tmp_path: Path) -> None:
    model = write_conv_model(tmp_path / "small.onnx")
    result = CliRunner().invoke(bench_app, [str(model), "--html", str(tmp_path / "no" / "page.html")])
    assert isinstance(result.exception, InputError)
    assert "can't be written" in str(result.exception)


def test_what_is_no_report_is_not_written_over(folder: Path) -> None:
    (folder / "report.html").write_text("mine")
    (folder / "other.html").write_text((folder / "report.json").read_text())
    for source in (folder, folder / "other.html"):
        assert isinstance(run(source).exception, InputError)
    assert (folder / "report.html").read_text() == "mine"
    assert json.loads((folder / "other.html").read_text())["schema_version"] == 1
