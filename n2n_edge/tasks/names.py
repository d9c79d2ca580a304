"""Names of the tasks, as settings have them."""

from typing import Literal, get_args

from n2n_edge.errors import InputError
from n2n_edge.importing import is_function_name

__all__ = ["TASK_NAMES", "TaskName", "check_task"]

TaskName = Literal["classification", "multilabel", "segmentation", "detection", "keypoints", "regression"]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)


def check_task(wanted: str) -> None:
    """Raise InputError for what is neither the name of a task, nor ``auto``, nor ``package.module:object``."""
    if wanted not in ("auto", *TASK_NAMES) and not is_function_name(wanted):
        raise InputError(
            f"‹task› {wanted}: no such task; give auto, {', '.join(TASK_NAMES)}, or package.module:object of your own"
        )
