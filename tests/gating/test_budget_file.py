"""Budgets in files: where they are found, which models they name, and what the command line adds."""

import json

import pytest
import typer
from typer.testing import CliRunner

from n2n_edge.cli.gate import gate
from n2n_edge.errors import InputError
from n2n_edge.gating.budget_file import find_budget_file, read_budget_file
from n2n_edge.gating.jobs import gate_jobs
from tests.gating.models import PARAMS, save_conv

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


def test_a_link_has_the_budgets_of_its_name(repository, tmp_path):
    blob = save_conv(tmp_path / "blob.onnx")
    (repository / "link.onnx").symlink_to(blob)
    _write(repository, '[gate]\nmax-mb = 99\n[gate.models."./link.onnx"]\nmax-params = 1\n')
    for arguments in ((), ("link.onnx",)):
        result = _run(*arguments)
        assert result.exit_code == 1
        assert "--max-params 1" in result.stdout


def test_growth_that_is_allowed_of_one_cost_leaves_the_others_alone(repository):
    _write(repository, '[gate]\nmax-regression = ["1%", "macs=2%"]\nbaseline = "models/a.onnx"\n')
    (job,) = gate_jobs(
        [repository / "models" / "a.onnx"], {"max-regression": ["latency_ms=20%"]}, find_budget_file(repository)
    )
    allowed = job.settings.regressions
    assert [allowed.of(cost) for cost in ("params", "macs", "latency_ms")] == [0.01, 0.02, 0.2]


def test_what_a_file_says_can_be_taken_back(repository):
    _write(
        repository,
        '[gate]\nmax-mb = 1e-9\nbaseline = "nowhere.onnx"\nallowed-ops = "Relu"\nstatic = true\n'
        '[gate.models."models/small/*.onnx"]\nmax-mb = inf\n',
    )
    back = ("--baseline", "none", "--allowed-ops", "none", "--max-params", 1000)
    assert _run("models/a.onnx", *back).exit_code == 1
    assert _run("models/a.onnx", *back, "--max-mb", "inf").exit_code == 0
    assert _run("models/small/b.onnx", *back).exit_code == 0


def test_a_model_given_twice_is_judged_once(repository):
    assert json.loads(_run("models/a.onnx", "models/a.onnx", "--max-mb", 1, "--json").stdout)["kind"] == "gate"


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
        ("[gate]\nmax-mb = -1\n", "max_mb"),
        ('[gate]\nmax-regression = "5"\n', "max_regression"),
        ("[budget]\nmax-mb = 1\n", "budget"),
        ("max-mb = 1\n", "max-mb"),
        ("[gate\n", "TOML"),
        ("", "[gate]"),
        ("[gate]\nthreads = 0\n", "threads"),
        ('[gate.models]\n"*.onnx" = 3\n', "models"),
        ('[gate.models."/abs/a.onnx"]\n', "/abs/a.onnx"),
        ('[gate.models."../a.onnx"]\n', "../a.onnx"),
        ('[gate.models."**a.onnx"]\n', "**a.onnx"),
        ('[gate.models."models/**"]\n', "models/**"),
        ('[gate.models.""]\n', "''"),
        ("[gate]\nmax-mb = true\n", "max-mb"),
        ('[gate]\ntarget = ""\n', "target"),
        ("[gate]\nmax-time = inf\n", "max-time"),
        ("[gate]\nmean = [0.5]\n", "mean"),
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


def test_init_keeps_links_permissions_and_line_ends(repository, tmp_path):
    real = tmp_path / "budgets.toml"
    real.write_bytes(b"# ours\r\n[gate]\r\nmax-mb = 9\r\n")
    real.chmod(0o600)
    (repository / "n2n-edge.toml").symlink_to(real)
    assert _run("--init", "models/a.onnx").exit_code == 0
    assert (repository / "n2n-edge.toml").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert real.read_bytes().startswith(b"# ours\r\n[gate]\r\n")


@pytest.mark.parametrize("text", ["gate = { max-mb = 1 }\n", '[gate]\nmodels = { "b.onnx" = { max-mb = 1 } }\n'])
def test_init_breaks_no_file_that_it_cannot_add_to(repository, text):
    path = _write(repository, text)
    assert "can't be added" in str(_run("--init", "models/a.onnx").exception)
    assert path.read_text() == text


def test_init_refuses_what_it_cannot_write_without_loss(repository, tmp_path):
    _write(repository, "[gate\n")
    for arguments in (
        ("models/a.onnx",),
        ("models/a.onnx", "--config", "pyproject.toml"),
        ("models/a.onnx", "--config", "models/small/n2n-edge.toml"),
        ("models/a.onnx", "models/small/b.onnx"),
        ("models/a.onnx", "--config", "other.toml", "--headroom", "100%"),
        ("models/a.onnx", "--config", "other.toml", "--max-mb", "1"),
        ("models/a.onnx", "--config", "other.toml", "--target", "host-limited", "--device", "raspberry-pi-4"),
        ("nowhere.onnx", "--config", "other.toml"),
    ):
        assert isinstance(_run("--init", *arguments).exception, InputError), arguments
    assert (repository / "n2n-edge.toml").read_text() == "[gate\n"
    assert sorted(path.name for path in repository.iterdir()) == [".git", "models", "n2n-edge.toml"]
