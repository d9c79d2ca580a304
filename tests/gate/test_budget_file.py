"""Budgets in files: where they are found, which models they name, and what the command line adds."""

import json

import pytest
import typer
from typer.testing import CliRunner

from n2n_edge.cli.gate import gate
from n2n_edge.errors import InputError
from n2n_edge.gate import find_budget_file, gate_jobs, read_budget_file
from tests.gate.models import PARAMS, save_conv

app = typer.Typer()
app.command()(gate)


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """A repository with two models, in which the tests run."""
    folder = tmp_path / "repository"
    (folder / ".git").mkdir(parents=True)
    (folder / "models" / "small").mkdir(parents=True)
    save_conv(folder / "models" / "a.onnx")
    save_conv(folder / "models" / "small" / "b.onnx", channels=4)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return folder


def _run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _write(folder, text, name="n2n-edge.toml"):
    (folder / name).write_text(text)
    return folder / name


def _settings(model):
    (job,) = gate_jobs([model], {}, find_budget_file(model.parent))
    return job.settings


def test_a_later_table_of_the_file_holds_over_an_earlier_one_and_options_over_both(repository):
    _write(
        repository,
        '[gate]\nmax-params = 1\nmax-mb = 1\n[gate.models."models/**/*.onnx"]\nmax-params = 2\n'
        '[gate.models."models/small/*.onnx"]\nmax-params = 3\n',
    )
    assert _settings(repository / "models" / "a.onnx").max_params == 2
    assert _settings(repository / "models" / "small" / "b.onnx").max_params == 3
    assert _settings(repository / "models" / "small" / "b.onnx").max_mb == 1
    result = _run("models/a.onnx", "--max-params", PARAMS)
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("glob", "matched"),
    [
        ("models/*.onnx", ["a"]),
        ("models/**/*.onnx", ["a", "b"]),
        ("**/b.onnx", ["b"]),
        ("*.onnx", []),
        ("models/small/b.onnx", ["b"]),
        ("models/[ab].onnx", ["a"]),
    ],
)
def test_globs_match_within_a_folder_and_double_stars_across(repository, glob, matched):
    budgets = read_budget_file(_write(repository, f'[gate.models."{glob}"]\nmax-mb = 1\n'))
    models = {"a": repository / "models" / "a.onnx", "b": repository / "models" / "small" / "b.onnx"}
    assert [name for name, path in models.items() if budgets.matches(glob, path)] == matched
    if matched:
        assert {path.stem for path in budgets.found_models()} == set(matched)


def test_without_a_model_all_that_the_file_names_are_judged(repository):
    _write(repository, '[gate.models."models/**/*.onnx"]\nmax-params = 50\n')
    result = _run("--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["kind"] == "gates"
    assert {(row["model"].rpartition("/")[2], row["outcome"]) for row in document["models"]} == {
        ("a.onnx", "fail"),
        ("b.onnx", "pass"),
    }


def test_the_nearest_file_counts_up_to_the_repository_s_root(repository, monkeypatch):
    above = _write(repository.parent, "[gate]\nmax-mb = 1\n")
    monkeypatch.chdir(repository / "models")
    assert find_budget_file(repository / "models") is None
    own = _write(repository, "[gate]\nmax-mb = 2\n")
    assert find_budget_file(repository / "models").path == own.resolve()
    assert above.exists()


def test_a_project_file_counts_only_where_it_holds_budgets(repository):
    _write(repository, '[project]\nname = "x"\n', "pyproject.toml")
    assert find_budget_file(repository) is None
    _write(
        repository,
        '[project]\nname = "x"\n[tool.n2n-edge.gate.models."models/a.onnx"]\nmax-params = 79\n',
        "pyproject.toml",
    )
    result = _run("models/a.onnx")
    assert result.exit_code == 1
    assert "--max-params 79" in result.stdout


def test_paths_in_a_file_are_relative_to_it(repository, monkeypatch):
    _write(repository, '[gate]\nbaseline = "models/a.onnx"\nstatic = true\nallowed-ops = "@ops.txt"\n')
    (repository / "ops.txt").write_text("Conv\n")
    monkeypatch.chdir(repository / "models")
    assert _run("a.onnx").exit_code == 0


def test_no_config_reads_none(repository):
    _write(repository, "[gate]\nmax-params = 1\n")
    assert _run("models/a.onnx", "--no-config", "--max-mb", 1).exit_code == 0
    assert _run("models/a.onnx", "--max-mb", 1).exit_code == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gate]\nmax-mbs = 1\n", "max-mbs"),
        ('[gate]\nmax-mb = "big"\n', "max-mb"),
        ("[gate]\nmax-mb = -1\n", "--max-mb"),
        ('[gate]\nmax-regression = "5"\n', "--max-regression"),
        ("[budget]\nmax-mb = 1\n", "budget"),
        ("max-mb = 1\n", "max-mb"),
        ("[gate\n", "TOML"),
        ("", "[gate]"),
        ("[gate]\nthreads = 0\n", "threads"),
        ('[gate.models]\n"*.onnx" = 3\n', "models"),
        ('[gate.models."*.onnx"]\nmax-latency = 3\n', 'models."*.onnx"'),
    ],
)
def test_a_file_that_is_not_right_is_refused_with_what_is_wrong(repository, text, words):
    _write(repository, text)
    result = _run("models/a.onnx")
    assert isinstance(result.exception, InputError)
    assert words in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_glob_that_names_no_file_is_refused(repository):
    _write(repository, '[gate.models."model/*.onnx"]\nmax-mb = 1\n')
    result = _run()
    assert isinstance(result.exception, InputError)
    assert "model/*.onnx" in str(result.exception)


def test_init_writes_budgets_that_pass_today_and_break_with_growth(repository):
    result = _run("--init", "models/a.onnx", "--device", "raspberry-pi-4")
    assert result.exit_code == 0, result.output
    text = (repository / "n2n-edge.toml").read_text()
    assert '[gate.models."models/a.onnx"]' in text
    assert "max-latency-ms" in text
    assert _run("models/a.onnx").exit_code == 0
    save_conv(repository / "models" / "a.onnx", channels=10)
    assert _run("models/a.onnx").exit_code == 1


def test_init_adds_to_a_file_and_loses_nothing_of_it(repository):
    before = "# ours\n[gate]\nmax-mb = 9\n"
    path = _write(repository, before)
    assert _run("--init", "models/small/b.onnx", "--headroom", "50%").exit_code == 0
    assert path.read_text().startswith(before)
    assert read_budget_file(path).models["models/small/b.onnx"]["max-params"] == 60
    again = _run("--init", "models/small/b.onnx")
    assert isinstance(again.exception, InputError)
    assert "already" in str(again.exception)


def test_init_refuses_what_it_cannot_write_without_loss(repository, tmp_path):
    _write(repository, "[gate\n")
    for arguments in (
        ("models/a.onnx",),
        ("models/a.onnx", "--config", "pyproject.toml"),
        ("models/a.onnx", "--config", "models/small/n2n-edge.toml"),
        ("models/a.onnx", "models/small/b.onnx"),
        ("models/a.onnx", "--config", "other.toml", "--headroom", "100%"),
        ("nowhere.onnx", "--config", "other.toml"),
    ):
        assert isinstance(_run("--init", *arguments).exception, InputError), arguments
    assert (repository / "n2n-edge.toml").read_text() == "[gate\n"
    assert sorted(path.name for path in repository.iterdir()) == [".git", "models", "n2n-edge.toml"]
