"""A runner for GitHub workflows that knows as much of them as the sample repository needs.

Steps with ``run`` are started as GitHub does it (``bash --noprofile --norc -eo pipefail``), composite actions step by
step in their own context; workflow commands are read from both streams.
"""

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Annotation", "JobResult", "run_job"]

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"^::(error|warning|notice) ([^:]*)::(.*)$")
EXPRESSION = re.compile(r"\$\{\{\s*([^}]+?)\s*\}\}")
CONDITION = re.compile(r"^([\w.-]+)\s*(==|!=)\s*'([^']*)'$")


@dataclass(frozen=True)
class Annotation:
    """What GitHub would show on the log and beside the file."""

    level: str
    message: str
    properties: dict[str, str]


@dataclass
class JobResult:
    """What a job left: exit code of its last step, annotations, summary, outputs of its actions, both streams."""

    exit_code: int = 0
    annotations: list[Annotation] = field(default_factory=list)
    summary: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    log: str = ""


def run_job(repository: Path, name: str, python: Path | None = None) -> JobResult:
    """Run one job of the repository's only workflow; a step that fails ends it. Commands beside `python` come first."""
    (workflow,) = (repository / ".github" / "workflows").glob("*.yml")
    job = yaml.safe_load(workflow.read_text())["jobs"][name]
    result = JobResult()
    for step in job["steps"]:
        if step["uses"].startswith("actions/checkout@"):
            continue  # it lies there
        assert step["uses"].startswith("n2n-edge/n2n-edge@")
        _run_action(ROOT, step.get("with", {}), repository, python, result)
        if result.exit_code:
            break
    return result


def _run_action(path: Path, given: dict[str, str], repository: Path, python: Path | None, result: JobResult) -> None:
    action = yaml.safe_load((path / "action.yml").read_text())
    assert action["runs"]["using"] == "composite"
    unknown = set(given) - set(action["inputs"])
    assert not unknown, f"the action has no input {unknown}"
    context = {f"inputs.{name}": str(given.get(name, entry["default"])) for name, entry in action["inputs"].items()}
    context["github.action_path"] = str(path)
    for step in action["runs"]["steps"]:
        if not _holds(step.get("if"), context):
            continue
        outputs = _run_step(step, context, repository, python, result)
        context |= {f"steps.{step.get('id', '')}.outputs.{name}": value for name, value in outputs.items()}
        if result.exit_code:
            break
    result.outputs |= {name: _filled(entry["value"], context) for name, entry in action.get("outputs", {}).items()}


def _run_step(
    step: dict[str, Any], context: dict[str, str], repository: Path, python: Path | None, result: JobResult
) -> dict[str, str]:
    assert step["shell"] == "bash"
    files = {name: repository.parent / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in files.values():
        file.write_text("")
    environment = {
        **os.environ,
        **({} if python is None else {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}),
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(repository),
        **{name: str(file) for name, file in files.items()},
        **{name: _filled(str(value), context) for name, value in step.get("env", {}).items()},
    }
    script = repository.parent / "step.sh"
    script.write_text(_filled(step["run"], context))
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
        cwd=repository, env=environment, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    result.exit_code = done.returncode
    result.log += done.stdout + done.stderr
    result.summary += files["GITHUB_STEP_SUMMARY"].read_text()
    for line in (*done.stdout.splitlines(), *done.stderr.splitlines()):
        found = COMMAND.match(line)
        if found is not None:
            properties = dict(part.split("=", 1) for part in found[2].split(","))
            plain = {name: _decoded(value) for name, value in properties.items()}
            result.annotations.append(Annotation(found[1], _decoded(found[3]), plain))
    return dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())


def _filled(text: str, context: dict[str, str]) -> str:
    return EXPRESSION.sub(lambda found: context.get(found[1], ""), text)


def _holds(condition: str | None, context: dict[str, str]) -> bool:
    if condition is None:
        return True
    found = CONDITION.match(condition)
    assert found is not None, f"this runner doesn't know the condition {condition}"
    return (context[found[1]] == found[3]) == (found[2] == "==")


def _decoded(text: str) -> str:
    for code, letter in (("%0A", "\n"), ("%0D", "\r"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, letter)
    return text
