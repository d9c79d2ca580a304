"""Folder of a run: its files, the settings it was begun with, and the student put in place as the last step."""

import hashlib
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from n2n_edge.data.loading import PIXELS, quiet
from n2n_edge.errors import InputError
from n2n_edge.report.document import RunReport
from n2n_edge.runs.document import read_report
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.runs.settings_file import read_settings, write_settings

__all__ = ["RunFolder", "finished_report", "publish", "sha256_of"]


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def settings(self) -> Path:
        """What was asked."""
        return self.path / "run.toml"

    @property
    def journal(self) -> Path:
        """Everything decided and measured."""
        return self.path / "journal.sqlite"

    @property
    def teacher(self) -> Path:
        """The teacher as it was exported, where it came as a torch network."""
        return self.path / "teacher.onnx"

    @property
    def input_size(self) -> Path:
        """The size of image that ``input_size`` auto has chosen."""
        return self.path / "input-size.toml"

    @property
    def student(self) -> Path:
        """The model that ships."""
        return self.path / "student.onnx"

    @property
    def unproven(self) -> Path:
        """The same until parity and budgets are proven and the report is written."""
        return self.path / ".unproven" / "student.onnx"

    @property
    def checkpoint(self) -> Path:
        """The final distillation under way; gone when the run is done."""
        return self.path / "training.checkpoint"

    @property
    def quantized_checkpoint(self) -> Path:
        """The same of its quantization-aware part."""
        return self.path / "quantized.checkpoint"

    @property
    def cache(self) -> Path:
        """Decoded images of a large folder; there only while the run lasts."""
        return self.path / ".decoded"

    @contextmanager
    def reading_images(self) -> Iterator[None]:
        """Begin without decoded images, as a killed run may have left, and leave none behind; Pillow says nothing."""
        self._remove_cache()
        try:
            with quiet():
                yield
        finally:
            self._remove_cache()

    def _remove_cache(self) -> None:
        for path in self.cache.glob(f"*{PIXELS}"):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.cache.rmdir()

    @property
    def stacks(self) -> Path:
        """Where every thread was when the run crashed or stalled; absent otherwise."""
        return self.path / "stacks.txt"

    @property
    def stacks_before(self) -> Path:
        """The same of the run before the one under way."""
        return self.path / "stacks-before.txt"

    @property
    def crashed(self) -> bool:
        """Whether the run before this one crashed or stalled."""
        return self.stacks.is_file() and self.stacks.stat().st_size > 0

    @property
    def tensorboard(self) -> Path:
        """Event files for TensorBoard, where they were asked for."""
        return self.path / "tensorboard"

    @property
    def report_json(self) -> Path:
        """The run's figures."""
        return self.path / "report.json"

    @property
    def report_html(self) -> Path:
        """The same for people."""
        return self.path / "report.html"

    @property
    def model_card(self) -> Path:
        """What a user of the student has to know."""
        return self.path / "model-card.md"

    @classmethod
    def new(cls, path: Path) -> "RunFolder":
        """Return the folder of a new run, not made yet; raises InputError where another run, or anything else, lies."""
        folder = cls(path)
        if folder.settings.exists() or folder.journal.exists():
            raise InputError(f"{path} holds another run; give another ‹out›, or ‹resume› to continue that one")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} is not an empty folder; give another ‹out›")
        return folder

    def begin(self, settings: CompressSettings) -> bool:
        """Make the folder and write the settings; tell whether that was still to do.

        Raises:
            InputError: the folder can't be written.
        """
        if self.settings.exists():
            return False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_settings(settings, self.settings)
        except OSError as error:
            raise InputError(f"{self.path} can't be written ({error.strerror}); give another ‹out›") from error
        return True

    def abandon(self) -> None:
        """Take back `begin` where nothing has been worked out yet, so that a corrected command can use the folder."""
        if not self.journal.exists():
            self._remove_cache()
            for path in (self.teacher, self.path / "data.npz", *self.path.glob("*.toml")):
                path.unlink(missing_ok=True)
            self.settings.unlink(missing_ok=True)
            with suppress(OSError):  # other files have come: leave them
                self.path.rmdir()

    @property
    def resume_command(self) -> str:
        """The command that goes on with the run."""
        return f"n2n-edge compress --resume --out {shlex.quote(str(self.path))}"

    def of_candidate(self, number: int) -> Path:
        """Return the folder for a candidate that is shipped beside the run's own student."""
        return self.path / f"candidate-{number}"

    @classmethod
    def existing(cls, path: Path) -> tuple["RunFolder", CompressSettings]:
        """Return the folder and settings of a run that has a journal; raises InputError where there is none."""
        folder = cls(path)
        if not folder.settings.is_file() or not folder.journal.is_file():
            raise InputError(f"{path} holds no run; give the folder that `n2n-edge compress` wrote")
        return folder, read_settings(folder.settings)

    @classmethod
    def resume(cls, path: Path) -> tuple["RunFolder", CompressSettings]:
        """Return the folder and the settings of a run that was begun; raises InputError where there is none."""
        folder = cls(path)
        return folder, read_settings(folder.settings)


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
    for checkpoint in (folder.checkpoint, folder.quantized_checkpoint):
        for path in folder.path.glob(f"{checkpoint.name}*"):  # and what stands beside it, such as a rate
            path.unlink(missing_ok=True)


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
