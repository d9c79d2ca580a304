"""A team's repository, gated as a runner would: exit codes, annotations, summary, reports."""

import json
import os
import shlex
import shutil
import sys
import venv
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
import xmlschema
import yaml

from tests.gating.models import save_conv
from tests.gating.runner import ROOT, run_job

HERE = Path(__file__).parent


@pytest.fixture
def repository(tmp_path, command_forks, monkeypatch):
    command = tmp_path / "bin" / "n2n-edge"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.join(command_forks.argv([sys.executable, "-m", "n2n_edge"]))} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "repository"
    shutil.copytree(HERE / "sample", folder)
    for name in ("models", "main"):
        (folder / name).mkdir()
        save_conv(folder / name / "student.onnx")
    return folder


def _junit(folder):
    text = (folder / "gate.xml").read_text()
    xmlschema.XMLSchema(HERE / "junit.xsd").validate(text)
    return ElementTree.fromstring(text)


def test_a_job_within_its_budgets_passes_quietly(repository):
    job = run_job(repository, "budgets")
    assert job.exit_code == 0, job.log
    assert job.outputs == {"outcome": "pass", "exit-code": "0"}
    assert job.annotations == []
    assert "**pass: all 4 met**" in job.summary
    assert _junit(repository).find("testsuite").get("failures") == "0"
    assert json.loads((repository / "gate.json").read_text()) == []


def test_a_broken_budget_fails_the_job_and_is_annotated_at_the_model(repository):
    job = run_job(repository, "one-budget-broken")
    assert job.exit_code == 1
    assert job.outputs == {"outcome": "fail", "exit-code": "1"}
    (annotation,) = job.annotations
    assert annotation.level == "error"
    assert annotation.properties == {"file": "models/student.onnx", "title": "n2n-edge gate: --max-params 79"}
    assert "80 params" in annotation.message
    assert "| `--max-params 79` | **FAIL** |" in job.summary
    assert job.summary == (repository / "gate.md").read_text()
    (failure,) = _junit(repository).iter("failure")
    assert "80 params" in failure.get("message")
    (entry,) = json.loads((repository / "gate.json").read_text())
    assert (entry["severity"], entry["location"]["path"]) == ("critical", "models/student.onnx")


def test_what_cannot_be_told_ends_with_3_and_a_warning(repository):
    job = run_job(repository, "cannot-be-told")
    assert job.exit_code == 3
    assert job.outputs == {"outcome": "inconclusive", "exit-code": "3"}
    (annotation,) = job.annotations
    assert annotation.level == "warning"
    assert "--max-time" in annotation.message
    assert "*inconclusive*" in job.summary
    assert [error.get("type") for error in _junit(repository).iter("error")] == ["inconclusive"]


def test_a_team_may_let_what_cannot_be_told_pass(repository):
    job = run_job(repository, "cannot-be-told-but-allowed")
    assert job.exit_code == 0
    assert job.outputs == {"outcome": "inconclusive", "exit-code": "3"}


def test_only_the_gate_s_own_open_verdict_is_let_pass(repository):
    workflow = repository / ".github" / "workflows" / "models.yml"
    document = yaml.safe_load(workflow.read_text())
    step = document["jobs"]["cannot-be-told-but-allowed"]["steps"][1]["with"]
    step["options"] = "--max-params 79 --junit nowhere/gate.xml"
    workflow.write_text(yaml.safe_dump(document))
    job = run_job(repository, "cannot-be-told-but-allowed")
    assert job.exit_code == 2
    assert job.outputs["outcome"] == "error"


def test_wrong_usage_ends_with_2_and_says_why(repository):
    job = run_job(repository, "wrong-usage")
    assert job.exit_code == 2
    assert job.outputs == {"outcome": "error", "exit-code": "2"}
    (annotation,) = job.annotations
    assert annotation.level == "error"
    assert "studnet.onnx: no such file" in annotation.message
    assert job.summary == ""


def test_json_on_a_runner_is_one_document_on_stdout(repository):
    workflow = repository / ".github" / "workflows" / "models.yml"
    document = yaml.safe_load(workflow.read_text())
    document["jobs"]["budgets"]["steps"][1]["with"]["options"] = "--json --max-params 79"
    workflow.write_text(yaml.safe_dump(document))
    job = run_job(repository, "budgets")
    assert job.exit_code == 1
    parsed, _ = json.JSONDecoder().raw_decode(job.log)
    jsonschema.validate(parsed, json.loads((ROOT / "docs" / "schemas" / "gate.json").read_text()))
    assert len(job.annotations) == 1


@pytest.mark.slow
def test_the_action_installs_itself(repository, monkeypatch):
    workflow = repository / ".github" / "workflows" / "models.yml"
    document = yaml.safe_load(workflow.read_text())
    del document["jobs"]["budgets"]["steps"][1]["with"]["install"]
    workflow.write_text(yaml.safe_dump(document))
    venv.create(repository.parent / "venv", with_pip=True)
    monkeypatch.setenv("PIP_CONSTRAINT", str(ROOT / "constraints.txt"))
    job = run_job(repository, "budgets", python=repository.parent / "venv" / "bin" / "python")
    assert job.exit_code == 0, job.log
    assert job.outputs["outcome"] == "pass"
