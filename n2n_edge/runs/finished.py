"""A finished run: the student's file put in its place as the very last step, and held against its digest ever after."""

import hashlib
import shutil
from pathlib import Path

from n2n_edge.errors import InputError
from n2n_edge.report.document import RunReport
from n2n_edge.runs.document import read_report
from n2n_edge.runs.folder import RunFolder

__all__ = ["finished_report", "publish", "sha256_of"]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(folder: RunFolder) -> None:
    """Put the proven student where users look for it: a run that has it and its report is finished."""
    source = folder.unproven.parent
    others = [path for path in sorted(source.iterdir()) if path.name != folder.unproven.name]
    for path in (*others, folder.unproven):  # the student last
        path.replace(folder.path / path.name)
    shutil.rmtree(source, ignore_errors=True)
    folder.checkpoint.unlink(missing_ok=True)


def finished_report(folder: RunFolder) -> RunReport | None:
    """Return the report of a finished run, None where the run has still to go on.

    A run that was killed between its report and its student is finished here.

    Raises:
        InputError: the report is damaged, or the student isn't the file that the report speaks of.
    """
    if not folder.report_json.exists() or not (folder.student.exists() or folder.unproven.exists()):
        return None
    report = read_report(folder.report_json)
    digest = report["student"].get("sha256")
    if not folder.student.exists():
        if digest is None or sha256_of(folder.unproven) != digest:
            return None
        publish(folder)
    elif digest is not None and (not folder.student.is_file() or sha256_of(folder.student) != digest):
        raise InputError(
            f"{folder.student}: isn't the file that this run shipped, by its digest in {folder.report_json.name}; "
            "restore it, or remove it and resume, which makes it again"
        )
    return report
