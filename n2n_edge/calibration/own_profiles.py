"""The user's own profiles: making one, and writing calibrations into one."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from n2n_edge.calibration.calibrate import with_new
from n2n_edge.devices.profile import NAME_PATTERN, Calibration, Profile
from n2n_edge.devices.profile_file import with_calibrations
from n2n_edge.devices.registry import find_profile, load_profile, profile_file, read_profile, user_profile_folder
from n2n_edge.errors import InputError
from n2n_edge.measure.target import Target
from n2n_edge.reading import read_text
from n2n_edge.writing import write_text

__all__ = ["ProfileText", "check_writable", "new_profile", "profile_to_calibrate", "save_calibrations"]

_ASSUMED_CLOCK_MHZ = 1500.0
_ASSUMED_MEMORY_MB = 1000.0
_FLOP_PER_CYCLE = 8
_HOST = "cpu"


@dataclass(frozen=True)
class ProfileText:
    """A profile, its TOML text, and the file that a new version of it goes to: the user's own, or the one named."""

    profile: Profile
    text: str
    path: Path


def new_profile(name: str, like: str, out: Path | None = None) -> Path:
    """Write a copy of the profile `like` under another name, without its calibrations, which it borrows; return where.

    Raises:
        InputError: a name that no profile can have or that is taken, this machine as `like`, a file that exists.
    """
    if not re.fullmatch(NAME_PATTERN.removesuffix("$"), name):
        raise InputError(f"{name}: not a name for a profile; give small letters and digits, with hyphens between")
    known = load_profile(like)
    if known.is_host:
        raise InputError(
            f"‹like› {like}: that is this machine; name a board (`device calibrate --host` is for this one)"
        )
    path = out if out is not None else _own_folder() / f"{name}.toml"
    if path.exists():
        raise InputError(f"{path}: exists already; give another name, or ‹out›")
    text = with_calibrations(read_text(profile_file(like)), (), "")
    head, brace, tables = text.partition("\n[")
    head = re.sub(r"^(aliases|relative)\s*=\s*(\[[^\]]*\]|.*)[^\n]*\n", "", head + "\n", flags=re.MULTILINE)
    head = re.sub(r"^name\s*=.*$", lambda _: f'name = "{name}"', head, count=1, flags=re.MULTILINE)
    text = f'{head.rstrip()}\nrelative = "{known.name}"\n{brace}{tables}'
    _refuse_taken(path, read_profile(path, text))
    return _save(path, text)


def profile_to_calibrate(name: str | None, board: Target | None) -> ProfileText:
    """Return the profile that a calibration is about: a known one, or one made for the board.

    `board` is None for this machine. A new profile takes its cores and memory from what the board tells.

    Raises:
        InputError: a file that is not a valid profile, or this machine's profile for a board.
    """
    wanted = name or (_HOST if board is None else _slug(board.name))
    known = load_profile(wanted) if board is None or wanted.endswith(".toml") else find_profile(wanted.lower())
    if known is None:
        assert board is not None
        if not re.fullmatch(NAME_PATTERN.removesuffix("$"), wanted):
            raise InputError(f"‹profile› {wanted}: no such profile, nor a name for one; use a-z, 0-9 and hyphens")
        path = _own_folder() / f"{wanted}.toml"
        text = _described(wanted, board)
        return ProfileText(read_profile(path, text), text, path)
    if board is not None and known.is_host:
        raise InputError(f"‹profile› {wanted}: that is this machine, not {board.name}; name the board's profile")
    path = profile_file(wanted)
    text = read_text(path)
    own = wanted.endswith(".toml") or path.parent == user_profile_folder()
    return ProfileText(known, text, path if own else _own_folder() / f"{known.name}.toml")


def save_calibrations(source: ProfileText, found: Sequence[Calibration]) -> Path:
    """Write a profile with new calibrations and return where.

    Raises:
        InputError: the file can't be written.
    """
    remark = "by n2n-edge device calibrate, which writes everything from here on."
    return _save(source.path, with_calibrations(source.text, with_new(source.profile, found), remark))


def check_writable(path: Path) -> None:
    """Raise `InputError` if nothing can be written to `path`: to be known before minutes of timing."""
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{path}: can't be written, {nearest} allows no new files; name a profile file elsewhere")


def _own_folder() -> Path:
    """Return the folder that the user's own profiles are written to."""
    folder = user_profile_folder()
    if folder is None:
        raise InputError("profiles: you have no home folder here to keep one in; set XDG_CONFIG_HOME to a folder")
    return folder


def _refuse_taken(path: Path, profile: Profile) -> None:
    if path.parent != user_profile_folder():
        return
    known = find_profile(profile.name)
    if known is not None:
        raise InputError(f"{profile.name}: {known.name} goes by that name already; give another one")


def _save(path: Path, text: str) -> Path:
    read_profile(path, text)  # refuse to write what couldn't be read again
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error}); give another place") from error
    return path


def _slug(name: str) -> str:
    """Return a name for the board at an address such as ``ssh://pi@host:22/folder``."""
    return "-".join(re.findall(r"[a-z0-9]+", urlsplit(name).hostname or "")) or "board"


def _described(name: str, board: Target) -> str:
    """Return a profile of what a board tells of itself; what it doesn't tell is assumed, and said to be."""
    found, state = board.check(), board.state()
    cores = int(found.cores)
    clock = float(state.max_clock_mhz or _ASSUMED_CLOCK_MHZ)
    memory = float(found.memory_mb or _ASSUMED_MEMORY_MB)
    usable = min(float(found.available_memory_mb or memory), memory)
    told = "as the board told when it was calibrated"
    clock_source = told if state.max_clock_mhz else "assumed: the board doesn't tell"
    return f'''name = "{name}"
description = "{re.sub(r'[^ -~]|["]', "", str(found.cpu)) or "a board"}, {cores} cores, calibrated over ssh"
cores = {cores}
clock_mhz = {clock}
default_threads = {cores}
runtime = "onnxruntime"
providers = ["CPUExecutionProvider"]
compute_unit = "cpu"
memory_mb = {memory}
usable_memory_mb = {usable}
peak_gflops = {round(cores * clock / 1000 * _FLOP_PER_CYCLE, 1)}
bandwidth_gb_s = 8.0
launch_overhead_us = 10.0
channel_multiple = 4
channel_multiple_fp16 = 8
channel_multiple_int8 = 16

[sources]
cores = "{told}"
clock_mhz = "{clock_source}"
memory_mb = "{told}"
usable_memory_mb = "available {told}"
peak_gflops = "assumed: cores x clock x {_FLOP_PER_CYCLE} FLOP a cycle; rates are what was fitted, not this"
bandwidth_gb_s = "assumed; rates are what was fitted, not this"
launch_overhead_us = "assumed; rates are what was fitted, not this"
channel_multiple = "assumed: four fp32 lanes of a 128-bit register"
'''
