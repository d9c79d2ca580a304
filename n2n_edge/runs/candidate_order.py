"""Order of one candidate: what was asked of which run, kept with the plan of its training in the candidate's folder."""

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from n2n_edge.errors import InputError
from n2n_edge.reading import read_toml
from n2n_edge.runs.final import FinalPlan
from n2n_edge.runs.folder import RunFolder
from n2n_edge.writing import toml_value, write_text

__all__ = ["BEGUN", "Order", "begin", "begun"]

BEGUN = "candidate.toml"
_TRAINED = "trained_"
"""Before the names of a plan's figures in that file."""


@dataclass(frozen=True)
class Order:
    """What was asked: candidate `number` of a run, and what overrides the run's epochs or minutes."""

    run: Path
    number: int
    epochs: int | None
    minutes: float | None

    def to_toml(self, plan: FinalPlan) -> str:
        """Return the text of the file that marks a folder as this candidate's, which is trained by `plan`."""
        lines = [f"# a candidate of a run; `{self.command(None)}` goes on with it"]
        lines += [f"{name} = {toml_value(value)}" for name, value in self.asked().items()]
        lines += [f"{_TRAINED}{name} = {value}" for name, value in asdict(plan).items() if value is not None]
        return "\n".join(lines) + "\n"

    def asked(self) -> dict[str, object]:
        """Return what was asked as the file has it."""
        given = {"run": str(self.run), "candidate": self.number, "epochs": self.epochs, "minutes": self.minutes}
        return {name: value for name, value in given.items() if value is not None}

    def command(self, out: Path | None) -> str:
        """Return the command line that ships the same again."""
        words = ["n2n-edge", "pareto", shlex.quote(str(self.run)), "--ship", str(self.number)]
        for name, value in (("--epochs", self.epochs), ("--minutes", self.minutes)):
            words += [] if value is None else [name, f"{value:g}"]
        return " ".join(words if out is None else [*words, "--out", shlex.quote(str(out))])


def begun(target: RunFolder, order: Order) -> FinalPlan | None:
    """Return the plan of this candidate's training where it was begun in `target`, None where that is still to do.

    Raises:
        InputError: something else lies there.
    """
    path = target.path
    mark = path / BEGUN
    if not mark.exists():
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} holds something else; give another ‹out›")
        return None
    try:
        known = read_toml(mark, wanted="what `pareto --ship` wrote")
        kept = {name: value for name, value in known.items() if name.startswith(_TRAINED)}
        plan = FinalPlan(**{name.removeprefix(_TRAINED): int(value) for name, value in kept.items()})
        before = Order(Path(known["run"]), known["candidate"], known.get("epochs"), known.get("minutes"))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"{mark} can't be read ({error}); give another ‹out›") from error
    # the run may have moved since: which one it was stands in its journal, and its candidates have numbers
    if replace(before, run=order.run) != order:
        raise InputError(f"{path} was begun by `{before.command(None)}`; repeat that, or give another ‹out›")
    return plan


def begin(target: RunFolder, text: str | None) -> None:
    """Make the folder, with `text` as the file that marks it; raises InputError where it can't be written."""
    try:
        target.path.mkdir(parents=True, exist_ok=True)
        if text is not None:
            write_text(target.path / BEGUN, text)
    except OSError as error:
        raise InputError(f"{target.path} can't be written ({error.strerror}); give another ‹out›") from error
