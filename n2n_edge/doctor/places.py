"""Tools and folders that a command may need."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from n2n_edge.devices.folders import profile_files, user_profile_folder
from n2n_edge.doctor.check import Check
from n2n_edge.errors import InputError
from n2n_edge.metrics.figures import MB

__all__ = ["folders", "ssh_client"]

SSH_VARIABLE = "N2N_EDGE_SSH"
LITTLE_DISK_MB = 500
"""A run of a middling teacher, its checkpoint and reports, and some room."""


def ssh_client() -> Check:
    """Look for the program that connections to boards are made with."""
    purpose = "measuring on boards: --target ssh://user@board"
    given = os.environ.get(SSH_VARIABLE, "")
    try:
        command = shlex.split(given) or ["ssh"]
    except ValueError:  # a quotation mark without its partner
        command = [given]
    found = shutil.which(command[0])
    if found is not None:
        return Check("tools", "ssh", "ok", found, purpose)
    remedy = "install an OpenSSH client (Debian: apt install openssh-client)"
    if SSH_VARIABLE in os.environ:
        remedy = f"let {SSH_VARIABLE} name a program that is there, or unset it"
    return Check("tools", "ssh", "missing", f"no program {command[0]}", purpose, remedy)


def folders() -> Iterator[Check]:
    """Give the working folder's room and permission, and the user's profiles."""
    try:
        here = Path.cwd()
        free_mb = shutil.disk_usage(here).free / MB
    except OSError as error:
        yield Check(
            "folders", "working folder", "limited", f"it is gone ({error.strerror})", "runs and reports",
            "change to a folder that is there",
        )  # fmt: skip
        return
    little = free_mb < LITTLE_DISK_MB
    yield Check(
        "folders", "free disk", "limited" if little else "ok", f"{free_mb:.0f} MB in {here}", "runs and reports",
        "make room, or give --out on another disk" if little else "",
    )  # fmt: skip
    yield _writable(here)
    yield _profiles(user_profile_folder())


def _writable(here: Path) -> Check:
    purpose = "runs and reports"
    try:
        with tempfile.TemporaryFile(dir=here):
            pass
    except OSError as error:
        return Check(
            "folders", "working folder", "limited", f"{here}: {error.strerror}", purpose, "work in a folder of your own"
        )
    return Check("folders", "working folder", "ok", f"{here} can be written", purpose)


def _profiles(folder: Path | None) -> Check:
    from n2n_edge.devices.registry import read_profile
    from n2n_edge.measure.messages import one_line

    purpose = "device profiles of your own"
    if folder is None:
        return Check(
            "folders", "profiles", "limited", "this user has no home folder", purpose,
            "set XDG_CONFIG_HOME to a folder of yours; the shipped profiles work without",
        )  # fmt: skip
    files = profile_files(folder)
    wrong = []
    for file in files:
        try:
            read_profile(file)
        except InputError as error:
            wrong.append((file, error))
    if wrong:
        file, first = wrong[0]
        remedy = f"correct or remove it; `n2n-edge profiles validate {shlex.quote(str(file))}` checks it"
        found = f"{len(wrong)} of {len(files)} wrong: {one_line(str(first), 200)}"
        return Check("folders", "profiles", "limited", found, purpose, remedy)
    found = f"{len(files)} in {folder}, all valid" if files else f"none yet in {folder}"
    return Check("folders", "profiles", "ok", found, purpose)
