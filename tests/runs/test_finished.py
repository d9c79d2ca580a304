"""A finished run: the student comes last, and is the file that the report speaks of."""

import json
from pathlib import Path

import pytest

from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.runs.environment import explained_failures
from n2n_edge.runs.folder import RunFolder, finished_report, publish, sha256_of
from tests.report.sample import sample_document


def proven(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.unproven.parent.mkdir(parents=True)
    folder.unproven.write_bytes(b"student")
    folder.unproven.with_name("student.onnx.data").write_bytes(b"weights")
    folder.checkpoint.write_bytes(b"checkpoint")
    return folder


def report(folder: RunFolder, digest: str | None) -> None:
    document = json.loads(json.dumps(sample_document()))
    if digest is not None:
        document["student"]["sha256"] = digest
    folder.report_json.write_text(json.dumps(document))


def test_the_student_gets_its_name_last(tmp_path: Path) -> None:
    folder = proven(tmp_path / "run")
    assert finished_report(folder) is None
    report(folder, sha256_of(folder.unproven))
    publish(folder)
    assert sorted(path.name for path in folder.path.iterdir()) == ["report.json", "student.onnx", "student.onnx.data"]
    assert finished_report(folder) is not None


def test_a_run_killed_between_report_and_student_is_finished_when_resumed(tmp_path: Path) -> None:
    folder = proven(tmp_path / "run")
    report(folder, sha256_of(folder.unproven))
    assert finished_report(folder) is not None
    assert folder.student.read_bytes() == b"student"
    assert not folder.unproven.parent.exists()


@pytest.mark.parametrize("digest", [None, "0" * 64])
def test_an_unproven_student_of_another_report_counts_for_nothing(tmp_path: Path, digest: str | None) -> None:
    folder = proven(tmp_path / "run")
    report(folder, digest)
    assert finished_report(folder) is None
    assert not folder.student.exists()


@pytest.mark.parametrize("content", [b"evil", b"", b"student "])
def test_a_swapped_student_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = proven(tmp_path / "run")
    report(folder, sha256_of(folder.unproven))
    publish(folder)
    folder.student.write_bytes(content)
    with pytest.raises(InputError, match=r"isn't the file that this run shipped.*remove it and resume"):
        finished_report(folder)
    folder.student.unlink()
    assert finished_report(folder) is None


def test_a_folder_in_the_students_place_is_refused(tmp_path: Path) -> None:
    folder = proven(tmp_path / "run")
    report(folder, "0" * 64)
    folder.student.mkdir()
    with pytest.raises(InputError, match="isn't the file"):
        finished_report(folder)


def test_reports_of_older_versions_have_no_digest(tmp_path: Path) -> None:
    folder = proven(tmp_path / "run")
    publish(folder)
    report(folder, None)
    assert finished_report(folder) is not None


class SafetensorError(Exception):
    """Named as the library's."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        OSError(27, "File too large"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("database or disk is full"),
    ],
)
def test_a_full_disk_is_one_line(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(UnsuitableEnvironmentError, match=r"disk is full; make room, then go on with `resume it`"),
        explained_failures(tmp_path, "resume it"),
    ):
        raise RuntimeError("saving") from error


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file"), SafetensorError("No such file"), OSError(5, "?")]
)
def test_a_folder_that_went_away_is_one_line(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(UnsuitableEnvironmentError, match=r"was moved or removed.*`resume it`"),
        explained_failures(tmp_path / "gone", "resume it"),
    ):
        raise error


def test_other_errors_pass(tmp_path: Path) -> None:
    for error in (ZeroDivisionError("x"), InputError("x"), FileNotFoundError(2, "elsewhere")):
        with pytest.raises(type(error)), explained_failures(tmp_path, "resume it"):
            raise error
