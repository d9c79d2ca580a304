"""The user's own profiles: making one, and writing calibrations into one."""

import re
from collections.abc import Sequence
from pathlib import Path

from n2n_edge.devices.calibrate import with_new
from n2n_edge.devices.profile import Calibration, Profile
from n2n_edge.devices.profile_file import with_calibrations
from n2n_edge.devices.registry import load_profile, profile_file, read_profile, user_profile_folder
from n2n_edge.errors import InputError
from n2n_edge.measure import Target
from n2n_edge.writing import write_text

__all__ = ["new_profile", "profile_to_calibrate", "save_calibrations"]

_ASSUMED_CLOCK_MHZ = 1500.0
_ASSUMED_MEMORY_MB = 1000.0
_FLOP_PER_CYCLE = 8
_HOST = "cpu"


def new_profile(name: str, like: str, out: Path | None = None) -> Path:
    """Write a copy of the profile `like` under another name, without its calibrations, which it borrows; return where.

    Raises:
        InputError: a name that no profile can have, or a file that exists.
    """
    known = load_profile(like)
    path = out if out is not None else user_profile_folder() / f"{name}.toml"
    if path.exists():
        raise InputError(f"{path}: exists already; give another name, or --out")
    text = with_calibrations(profile_file(like).read_text(encoding="utf-8"), (), "")
    text = re.sub(r'^name = ".*"', f'name = "{name}"', text, flags=re.MULTILINE)
    text = re.sub(r"^(aliases|relative|is_host) = .*\n", "", text, flags=re.MULTILINE)
    if not known.is_host:
        text = text.replace("\n[", f'\nrelative = "{known.name}"\n\n[', 1) if "\n[" in text else text
    for field in (
        "cores",
        "clock_mhz",
        "default_threads",
        "memory_mb",
        "usable_memory_mb",
        "peak_gflops",
        "channel_block",
    ):
        text = text.replace(f'{field} = "host"', f"{field} = {getattr(known, field)}")
    return _save(path, text)


def profile_to_calibrate(name: str | None, board: Target | None) -> tuple[Profile, str]:
    """Return the profile that a calibration is about, and its TOML text: a known one, or one made for the board.

    `board` is None for this machine. A new profile takes its cores and memory from what the board tells.
    """
    if name is None and board is None:
        name = _HOST
    if name is not None:
        try:
            return load_profile(name), profile_file(name).read_text(encoding="utf-8")
        except InputError:
            if board is None or name.endswith(".toml") or not _NAME.match(name):
                raise
    assert board is not None
    text = _described(name or _slug(board.name), board)
    path = user_profile_folder() / f"{name or _slug(board.name)}.toml"
    return read_profile(path, text), text


def save_calibrations(profile: Profile, text: str, found: Sequence[Calibration]) -> Path:
    """Write a profile with new calibrations into the user's own profiles and return where.

    Raises:
        InputError: the file can't be written.
    """
    named = [each.model_copy(update={"measured_on": profile.name}) for each in found]
    text = with_calibrations(text, with_new(profile, named), "by n2n-edge device calibrate; more is kept below.")
    return _save(user_profile_folder() / f"{profile.name}.toml", text)


def _save(path: Path, text: str) -> Path:
    read_profile(path, text)  # refuse to write what couldn't be read again
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error}); give another place") from error
    return path


_NAME = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)*$")


def _slug(name: str) -> str:
    host = re.sub(r"^ssh://", "", name).rsplit("@", 1)[-1].split("/")[0].split(":")[0].split("?")[0]
    return "-".join(re.findall(r"[a-z0-9]+", host.lower())) or "board"


def _described(name: str, board: Target) -> str:
    """Return a profile of what a board tells of itself; what it doesn't tell is assumed, and said to be."""
    found, state = board.check(), board.state()
    cores = int(found["cores"])
    clock = float(state.max_clock_mhz or _ASSUMED_CLOCK_MHZ)
    memory = float(found["memory_mb"] or _ASSUMED_MEMORY_MB)
    usable = min(float(found["available_memory_mb"] or memory), memory)
    told = "as the board told when it was calibrated"
    clock_source = told if state.max_clock_mhz else "assumed: the board doesn't tell"
    return f'''name = "{name}"
description = "{re.sub(r'[^ -~]|["]', "", str(found["cpu"])) or "a board"}, {cores} cores, calibrated over ssh"
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
