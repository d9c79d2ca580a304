"""Where profiles are found: a path, the user's own folder, then the ones that ship."""

import tomllib
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from n2n_edge.devices.host import HOST_FIELDS, host_values
from n2n_edge.devices.profile import Profile
from n2n_edge.devices.profile_file import line_of
from n2n_edge.errors import InputError
from n2n_edge.profile_folders import shipped_profile_folder, user_profile_folder

__all__ = ["find_profile", "list_profiles", "load_profile", "profile_file", "read_profile", "user_profile_folder"]


def load_profile(name_or_path: str | Path) -> Profile:
    """Return the profile at a path ending in ``.toml``, or the one with this name or alias.

    The user's own folder comes before the shipped profiles, so that a person can correct one. A name comes before an
    alias.

    Raises:
        InputError: no such file or device (with the nearest names), or a file that is not a valid profile.
    """
    name_or_path = str(name_or_path)
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise InputError(f"{name_or_path}: no such profile file; check the path, or see `n2n-edge profiles list`")
        return read_profile(path)
    wanted = name_or_path.strip().lower()
    found = find_profile(wanted)
    if found is not None:
        return found
    layers = [_read_folder(folder, wanted) for folder in (user_profile_folder(), shipped_profile_folder())]
    known = sorted(
        {name for profiles in layers for profile, _ in profiles for name in (profile.name, *profile.aliases)}
    )
    near = get_close_matches(wanted, known, n=3, cutoff=0.4)
    hint = f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}"
    raise InputError(f"unknown device '{name_or_path}' ({hint}); see `n2n-edge profiles list`, or give a .toml file")


def find_profile(name: str) -> Profile | None:
    """Return the profile with this name or alias, the user's own before the shipped ones; None if there is none.

    Raises:
        InputError: the user's file of that name is not a valid profile.
    """
    found = _find(name)
    return None if found is None else found[0]


def _find(name: str) -> tuple[Profile, Path] | None:
    for folder in (user_profile_folder(), shipped_profile_folder()):
        profiles = _read_folder(folder, name)
        for profile, path in profiles:
            if name == profile.name:
                return profile, path
        for profile, path in profiles:
            if name in profile.aliases:
                return profile, path
    return None


def profile_file(name_or_path: str) -> Path:
    """Return the file of the profile that `load_profile` gives for a name or path that it knows."""
    if name_or_path.endswith(".toml"):
        return Path(name_or_path).expanduser()
    found = _find(name_or_path.strip().lower())
    if found is None:
        raise InputError(f"{name_or_path}: no such profile; see `n2n-edge profiles list`")
    return found[1]


def list_profiles() -> tuple[Profile, ...]:
    """Return every profile that a name can reach, by name; the user's own hide shipped ones of the same name.

    Raises:
        InputError: a file in the user's folder is not a valid profile.
    """
    by_name = {profile.name: profile for profile, _ in _read_folder(shipped_profile_folder())}
    by_name |= {profile.name: profile for profile, _ in _read_folder(user_profile_folder())}
    return tuple(by_name[name] for name in sorted(by_name))


def read_profile(path: Path, text: str | None = None) -> Profile:
    """Return the profile in a TOML file (`text` stands in for the file's), ``"host"`` values filled in from here.

    Raises:
        InputError: one line with the file and the fields that are unknown, missing, out of range or contradictory.
    """
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
        values = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a readable TOML profile: {error}") from error
    asked = [field for field in HOST_FIELDS if values.get(field) == "host"]
    if asked:
        if values.get("is_host") is not True:
            raise InputError(
                f"{path}: line {line_of(text, asked[:1])}: field '{asked[0]}': \"host\" is only allowed where "
                "is_host = true; give a number"
            )
        here = host_values()
        values |= {field: here[field] for field in asked}
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        complaints = "; ".join(
            _complaint(text, list(detail["loc"]), detail["type"], detail["msg"]) for detail in error.errors()
        )
        raise InputError(f"{path}: {complaints}") from error


def _complaint(text: str, location: list[int | str], kind: str, message: str) -> str:
    """Turn one of pydantic's errors into a phrase that names the line and the field."""
    message = message.removeprefix("Value error, ")
    if kind == "value_error":  # begins with the field that is wrong
        named, _, message = message.partition(": ")
        location = [*location, *(int(part) if part.isdecimal() else part for part in named.split("."))]
    elif kind == "extra_forbidden":
        message = "unknown key; remove it or correct its spelling"
    elif kind == "missing":
        message = "missing"
    else:
        message = f"{message[:1].lower()}{message[1:]}"
    return f"line {line_of(text, location)}: field '{'.'.join(str(part) for part in location)}': {message}"


def _read_folder(folder: Path, wanted: str | None = None) -> tuple[tuple[Profile, Path], ...]:
    """Return the profiles of a folder and their files, by file name; two that share a name or alias are refused.

    Where only one is `wanted`, a file that is wrong and says nothing of it is passed over.
    """
    if not folder.is_dir():
        return ()
    owners: dict[str, Path] = {}
    profiles = []
    for path in sorted(folder.glob("*.toml")):
        try:
            profile = read_profile(path)
        except InputError:
            if wanted is None or wanted == path.stem or f'"{wanted}"' in path.read_text("utf-8", "replace"):
                raise
            continue
        for name in (profile.name, *profile.aliases):
            if name in owners and wanted in (None, name):
                raise InputError(f"{path}: field 'name': '{name}' is already taken by {owners[name].name}; rename one")
            owners[name] = path
        profiles.append((profile, path))
    return tuple(profiles)
