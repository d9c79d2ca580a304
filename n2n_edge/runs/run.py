"""Run: one search with its folder, begun by `compress`, opened, resumed, and shipped from."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.importing import name_of_function
from n2n_edge.metrics.costs import COSTS, with_present_names
from n2n_edge.runs.callbacks import Callbacks, RunCallback, require_tensorboard, tensorboard_callbacks
from n2n_edge.runs.document import read_report, verdicts_of
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.setting_values import named_devices
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.runs.settings_file import absolute_paths, read_settings, write_settings

if TYPE_CHECKING:
    from torch import nn

    from n2n_edge.devices.profile import Profile
    from n2n_edge.metrics.budget import Budget
    from n2n_edge.metrics.verdict import Verdict
    from n2n_edge.report.document import RunReport
    from n2n_edge.runs.front import RunTrial
    from n2n_edge.runs.inputs import DataLike, TeacherLike
    from n2n_edge.training.augmentation import Augment

__all__ = ["Run", "compress", "new_run", "require_pillow", "require_tensorboard", "require_training_packages"]

INSTALL_HINT = 'needs torch, which is not installed; run: pip install "n2n-edge[compress]"'


_TRAINING_PACKAGES = {
    "torch": "torch",
    "safetensors": "safetensors",
    "PIL": "pillow",
    "lightning_fabric": "lightning-fabric",
}
"""The packages of ``[compress]`` by the names of their modules."""


def require_training_packages(what: str = "compressing") -> None:
    """Raise UnsuitableEnvironmentError, saying what to install, where the extra ``[compress]`` is missing.

    `what` needs it.
    """
    missing = [name for name in _TRAINING_PACKAGES if find_spec(name) is None]
    if missing:
        package = _TRAINING_PACKAGES[missing[0]]
        raise UnsuitableEnvironmentError(f"{what} {INSTALL_HINT.replace('torch', package, 1)}")


def require_pillow(what: str) -> None:
    """Raise UnsuitableEnvironmentError, saying what to install, where Pillow is missing; `what` needs it."""
    try:
        import_module("PIL.Image")
    except ImportError as error:
        raise UnsuitableEnvironmentError(
            f"{what} needs Pillow, which can't be imported ({error}); run: pip install pillow"
        ) from error


class Run:
    """One search with its folder: what was asked, what was tried, and the student that it shipped.

    `compress` begins one and returns it; `Run.open` gives that of a folder, finished or not.

    >>> run = n2n_edge.Run.open(example_run)
    >>> run.settings.seed, run.met, run.student.name
    (0, True, 'student.onnx')
    >>> run.trials[0].number, run.trials[0].stage
    (1, 1)
    """

    def __init__(self, folder: RunFolder, settings: CompressSettings) -> None:
        self._files = folder
        self.settings = settings

    @classmethod
    def open(cls, folder: Path | str) -> "Run":
        """Return the run that was begun in `folder`; raises InputError where there is none."""
        files = RunFolder(Path(folder))
        return cls(files, read_settings(files.settings))

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def folder(self) -> Path:
        """Where the run's files lie."""
        return self._files.path

    @property
    def begun(self) -> bool:
        """Whether there is anything to resume."""
        return self._files.settings.exists()

    @property
    def finished(self) -> bool:
        """Whether the student has been shipped."""
        return self._files.report_json.exists() and self._files.student.exists()

    @property
    def student(self) -> Path:
        """The ONNX file that ships, there once the run is finished; `load_student` makes a torch module of it."""
        return self._files.student

    @property
    def report(self) -> "RunReport":
        """The document ``report.json``; raises InputError where the run isn't finished."""
        if not self._files.report_json.exists():
            raise InputError(f"{self.folder}: not finished, it has no report yet; go on with Run.resume()")
        return read_report(self._files.report_json)

    @property
    def verdicts(self) -> "tuple[Verdict, ...]":
        """One verdict for each budget, that on the latency for each device."""
        return verdicts_of(self.report)

    @property
    def met(self) -> bool:
        """Whether the shipped file meets every budget."""
        return all(verdict.met for verdict in self.verdicts)

    @property
    def trials(self) -> "tuple[RunTrial, ...]":
        """What the run's journal holds, in the order evaluated, even while the run goes on."""
        from n2n_edge.runs.front import read_trials

        return read_trials(self.folder).trials

    @property
    def resume_command(self) -> str:
        """The command line that goes on with the run."""
        return self._files.resume_command

    def resume(self, *, callbacks: Sequence[RunCallback] = (), tensorboard: bool = False) -> "Run":
        """Go on with the run, with its own settings, to the result of an unbroken run; return it, finished.

        Raises what `compress` raises.
        """
        started = time.monotonic()  # loading torch counts, too
        require_training_packages()
        followers = Callbacks(tensorboard_callbacks(self._files.tensorboard, self.settings, tensorboard, callbacks))
        from n2n_edge.runs.execution import execute

        try:
            execute(self._files, self.settings, followers, started)
        finally:
            followers.on_end()
        return self

    @overload
    def ship(
        self,
        candidate: Sequence[int],
        *,
        out: Path | str | None = None,
        epochs: int | None = None,
        minutes: float | None = None,
        workers: int | None = None,
        cluster: str | None = None,
        callbacks: Sequence[RunCallback] = (),
    ) -> "tuple[Run, ...]": ...

    @overload
    def ship(
        self,
        candidate: "int | str | Path | nn.Module",
        *,
        out: Path | str | None = None,
        epochs: int | None = None,
        minutes: float | None = None,
        workers: int | None = None,
        cluster: str | None = None,
        callbacks: Sequence[RunCallback] = (),
    ) -> "Run": ...

    def ship(
        self,
        candidate: "int | str | Path | nn.Module | Sequence[int]",
        *,
        out: Path | str | None = None,
        epochs: int | None = None,
        minutes: float | None = None,
        workers: int | None = None,
        cluster: str | None = None,
        callbacks: Sequence[RunCallback] = (),
    ) -> "Run | tuple[Run, ...]":
        """Ship another student of this run, and return the run of its folder; of several candidates, those of each.

        `candidate` is the number of a trial, which is trained to the end (for `epochs`, or as many as fit into
        `minutes`); or the run's student after training of your own: a module that `load_student` gave, or an ONNX file
        of the same network. It goes into ``candidate-N`` or ``retrained`` in the run's folder, or into `out`, once it
        has passed what every student passes: parity, budgets, the test images.

        Of a list of numbers each goes into ``candidate-N`` in the run's folder, or in `out`. With `workers` or a
        `cluster`, as `compress` takes them, they are trained side by side, to the same students; callbacks hear of the
        epochs in messages then. Where one fails the others are shipped all the same.

        Raises:
            InputError: no such trial, another network, a teacher or data that have changed, or a folder in use.
            UnsuitableEnvironmentError: the exported file isn't what was trained.
            NotShippedError: some of several candidates failed.
        """
        require_training_packages()
        followers = Callbacks(callbacks)
        target = None if out is None else Path(out)
        try:
            if isinstance(candidate, Sequence) and not isinstance(candidate, str):
                return self._ship_several(candidate, target, epochs, minutes, workers, cluster, followers)
            for name, value in (("workers", workers), ("cluster", cluster)):
                if value is not None:
                    raise InputError(f"‹{name}› {value}: belongs to several candidates, such as 3,5; leave it out")
            from n2n_edge.runs.shipping import ship_candidate, ship_trained

            if isinstance(candidate, int):
                return Run(
                    *ship_candidate(
                        self.folder, candidate, out=target, epochs=epochs, minutes=minutes, callback=followers
                    )
                )
            student = Path(candidate) if isinstance(candidate, str) else candidate
            return Run(ship_trained(self.folder, student, target, followers), self.settings)
        finally:
            followers.on_end()

    def _ship_several(
        self,
        numbers: Sequence[int],
        out: Path | None,
        epochs: int | None,
        minutes: float | None,
        workers: int | None,
        cluster: str | None,
        callback: RunCallback,
    ) -> "tuple[Run, ...]":
        from n2n_edge.runs.shipping_several import NotShippedError, ship_candidates

        found = ship_candidates(
            self.folder, numbers, out=out, epochs=epochs, minutes=minutes, workers=workers, cluster=cluster,
            callback=callback,
        )  # fmt: skip
        runs = {each.number: Run(each.folder, each.settings) for each in found if each.settings is not None}
        errors = {each.number: each.error for each in found if each.error is not None}
        if errors:
            raise NotShippedError(errors, runs)
        return tuple(runs.values())

    def take_settings(self, given: Mapping[str, object]) -> None:
        """Take over those of `given`, settings by name, that don't change results; the run keeps them.

        Raises:
            InputError: another differs from what the run was begun with.
        """
        from n2n_edge.devices.registry import load_profile

        changing = {item.name for item in fields(CompressSettings) if item.metadata.get("may_change")}
        for name, value in given.items():
            own = getattr(self.settings, name)
            if name == "device":
                asked, begun = ([load_profile(each).name for each in _several(named)] for named in (value, own))
                if asked == begun:  # an alias of the same
                    continue
            if name == "runtime":
                profile = load_profile(self.settings.devices[0])
                value, own = (profile.under(each).runtime for each in (str(value), own))
            if value != own and name not in changing:
                option = name if name == "teacher" else f"‹{name}›"
                raise InputError(
                    f"{option} {_words(value)}: this run was begun with {_words(own)}; leave it out, or start a new "
                    "run with another ‹out›"
                )
        taken = {name: value for name, value in given.items() if name in changing}
        changed = replace(self.settings, **taken)  # type: ignore[arg-type]
        if changed != self.settings:
            self.settings = changed
            write_settings(changed, self._files.settings)


def _several(named: object) -> tuple[str, ...]:
    one_or_more = named_devices(named)
    return (one_or_more,) if isinstance(one_or_more, str) else one_or_more


def _words(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def compress(
    teacher: "TeacherLike | None" = None,
    data: "DataLike | None" = None,
    *,
    weights: Path | str | None = None,
    unlabelled: Sequence[str | Path] | None = None,
    classes: Path | str | None = None,
    device: "str | Path | Profile | Sequence[str | Path | Profile]" = "cpu",
    measured: Sequence[str] | None = None,
    runtime: str | None = None,
    max_mb: float | None = None,
    max_latency_ms: float | None = None,
    max_memory_mb: float | None = None,
    max_params: float | None = None,
    max_macs: float | None = None,
    min_score: float | None = None,
    max_drop: float | None = None,
    min_accuracy: float | None = None,
    objective: str | None = None,
    precision: str = "fp32",
    effort: str = "standard",
    candidates: int | None = None,
    minutes: float | None = None,
    epochs: int | None = None,
    seed: int = 0,
    policy: str = "reinforce",
    task: str = "auto",
    label_weight: float = 0.1,
    decode: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pixels: str | None = None,
    channels: str | None = None,
    resize: str | None = None,
    crop_ratio: float | None = None,
    interpolation: str | None = None,
    antialias: bool | None = None,
    pad_color: Sequence[int] | None = None,
    pad_position: str | None = None,
    input_shape: Sequence[int] | None = None,
    input_size: str = "keep",
    bind: Sequence[str] | None = None,
    opset: int | None = None,
    ir_version: int | None = None,
    augment: "str | Augment" = "auto",
    flip: bool | None = None,
    corruptions: bool = False,
    accept_expected: bool = False,
    merging: bool | None = None,
    trust_pt2: bool = False,
    train_device: str = "auto",
    train_precision: str = "auto",
    gpus: int | None = None,
    batch: int | None = None,
    cache_gb: float | None = None,
    data_workers: int | None = None,
    proposals: int | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    retries: int = 2,
    strict_data: bool = False,
    threads: int | None = None,
    budgets: "Sequence[Budget]" = (),
    out: Path | str = "n2n-run",
    resume: bool = False,
    tensorboard: bool = False,
    callbacks: Sequence[RunCallback] = (),
) -> Run:
    """Search for a smaller student, train it by distillation, and ship it with proof that it meets the budgets.

    >>> run = n2n_edge.compress(
    ...     device="raspberry-pi-4", max_mb=0.6, effort="quick", candidates=2, epochs=1, out=folder
    ... )
    >>> run.met, run.student.name
    (True, 'student.onnx')

    `teacher` is a file or name as on the command line, a `Teacher`, an ONNX model, or a torch network; None is the
    built-in example. `data` is a file or name, a torch Dataset (or a training and a test one), or arrays of images and
    labels. `augment` is a name, or a function of a module that takes uint8 images `(N, H, W, C)` and a torch.Generator.
    What is no file is written into the run's folder, so that the run can be resumed. `device` may be several,
    names, files or `Profile` objects, and `budgets` join those of the keywords; `min_accuracy` is another name of
    `min_score`. All other keywords are settings: see
    `CompressSettings`. With `tensorboard` the folder ``tensorboard`` in `out` gets event files.

    With `resume` the run in `out` goes on with its own settings, but for `cache_gb`, `data_workers`, `strict_data`,
    `workers`, `cluster` and `retries`, which change no result. A step that never ends ends the process with exit
    code 3 (after half an hour at least, or what the environment's ``N2N_EDGE_STALL_S`` says; 0 for never).

    Raises:
        InputError: anything wrong with teacher, data, device, settings or folder.
        ConversionError: the teacher, or the student, can't be converted for `runtime`, or isn't the same there.
        BudgetMissedError: no architecture meets the budgets.
        UnsuitableEnvironmentError: torch (or for `tensorboard` tensorboardX) is missing, or the exported file isn't
            what was trained.
    """
    given = with_present_names(locals())
    require_training_packages()
    if tensorboard:
        require_tensorboard()
    if not isinstance(augment, str):
        given["augment"] = name_of_function("‹augment›", augment)
    settings = {item.name: given[item.name] for item in fields(CompressSettings)} | _limits(budgets, given)
    if resume:
        run = Run.open(out)
        asked = {item.name: settings[item.name] for item in fields(CompressSettings) if item.name != "threads"}
        defaults = {item.name: item.default for item in fields(CompressSettings)}
        asked = {name: value for name, value in asked.items() if value != defaults[name]}
        if isinstance(asked.get("teacher"), str | Path | None) and isinstance(asked.get("data"), str | Path | None):
            run.take_settings(absolute_paths(asked))
    else:
        run = new_run(out, settings)
    return run.resume(callbacks=callbacks, tensorboard=tensorboard)


def _limits(budgets: "Sequence[Budget]", given: Mapping[str, object]) -> dict[str, float]:
    """Return `budgets` as settings; raises InputError where a keyword limits the same cost."""
    limits: dict[str, float] = {}
    for budget in budgets:
        keyword = COSTS[budget.cost].field
        if given[keyword] is not None or keyword in limits:
            raise InputError(f"‹{keyword}› {budget.limit:g}: the budget is given twice; give one of them")
        limits[keyword] = budget.limit
    return limits


def _profile_files(folder: RunFolder, given: dict[str, Any]) -> dict[Path, str]:
    """Return the files, and their texts, of profiles that aren't those of their names, and name these in `given`."""
    from n2n_edge.devices.profile import Profile
    from n2n_edge.devices.profile_file import profile_text
    from n2n_edge.devices.registry import find_profile

    several = not isinstance(given["device"], str | Path | Profile)
    files, names = {}, []
    for device in given["device"] if several else [given["device"]]:
        if not isinstance(device, Profile):
            names.append(device)
        elif device == find_profile(device.name):
            names.append(device.name)
        else:
            path = folder.path.absolute() / f"{device.name}.toml"
            files[path] = profile_text(device)
            names.append(str(path))
    given["device"] = names if several else names[0]
    return files


def new_run(out: Path | str, given: dict[str, Any]) -> Run:
    """Return a run of the settings in `given` that hasn't begun, what came as an object written into its folder."""
    folder = RunFolder.new(Path(out))
    teacher, data = given["teacher"], given["data"]
    objects = {name for name in ("teacher", "data") if not isinstance(given[name], str | Path | None)}
    profiles = _profile_files(folder, given)
    places = {name: folder.path.absolute() / f"{name}{'.onnx' if name == 'teacher' else '.npz'}" for name in objects}
    settings = CompressSettings(**absolute_paths({**given, **{name: str(path) for name, path in places.items()}}))  # type: ignore[arg-type]
    if not objects and not profiles:
        return Run(folder, settings)
    from n2n_edge.data.preprocessing_options import options_of
    from n2n_edge.runs.inputs import written_data, written_teacher

    if "teacher" in objects and settings.weights is not None:
        raise InputError(f"‹weights› {settings.weights}: belongs to a teacher given by name; load it into the network")
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        for path, profile in profiles.items():
            path.write_text(profile, encoding="utf-8")
        if "teacher" in objects:
            written_teacher(teacher, data, settings.input_shape, places["teacher"])
        if "data" in objects:
            file = None if settings.teacher is None else Path(settings.teacher)
            written_data(data, settings.input_shape, file, places["data"], options_of(settings))
    except BaseException:
        folder.abandon()
        raise
    return Run(folder, settings)
