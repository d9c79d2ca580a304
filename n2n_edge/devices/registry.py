"""Where profiles are found: a path, the user's own folder, then the ones that ship."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from n2n_edge.devices.folders import claimed_names, profile_files, profile_folders, profile_names, user_profile_folder
from n2n_edge.devices.host import HOST_FIELDS, host_values
from n2n_edge.devices.profile import Profile
from n2n_edge.devices.profile_file import line_of
from n2n_edge.errors import InputError
from n2n_edge.reading import expanded, is_file, read_text, read_toml

__all__ = [
    "find_profile",
    "list_profiles",
    "load_profile",
    "profile_errors",
    "profile_file",
    "profiles_with",
    "read_profile",
    "user_profile_folder",
]


def load_profile(name_or_path: str | Path) -> Profile:
    """Return the profile at a path ending in ``.toml``, or the one with this name or alias.

    The user's own folder comes before the shipped profiles, so that a person can correct one. A name comes before an
    alias.

    Raises:
        InputError: no such file or device (with the nearest names), or a file that is not a valid profile.

    >>> n2n_edge.load_profile("jetson").name
    'jetson-orin-nano'
    """
    name_or_path = str(name_or_path)
    if name_or_path.endswith(".toml"):
        path = expanded(name_or_path)
        if not is_file(path):
            raise InputError(f"{name_or_path}: no such profile file; check the path, or see `n2n-edge profiles list`")
        return read_profile(path)
    wanted = name_or_path.strip().lower()
    found = find_profile(wanted)
    if found is not None:
        return found
    known = profile_names()
    holding = [name for name in known if _plain(wanted) and _plain(wanted) in _plain(name)]
    near = [*holding, *(name for name in get_close_matches(wanted, known, n=3, cutoff=0.5) if name not in holding)][:4]
    hint = f" (nearest: {', '.join(near)})" if near else ""
    raise InputError(
        f"unknown device '{name_or_path}'{hint}; see `n2n-edge profiles list WORD`, give a .toml file, or take the "
        "profile of its core, such as cortex-a55"
    )


def find_profile(name: str) -> Profile | None:
    """Return the profile with this name or alias, the user's own before the shipped ones; None if there is none.

    Only the file of that name is read: others may be wrong.

    Raises:
        InputError: the file is not a valid profile, or another one of its folder has the same name.
    """
    path = _find(name)
    return None if path is None else read_profile(path)


def _find(name: str) -> Path | None:
    for folder in profile_folders():
        owners = [path for path in profile_files(folder) if name in claimed_names(path)]
        if len(owners) > 1:
            raise _taken(owners[1], name, owners[0])
        if owners:
            return owners[0]
    return None


def _taken(path: Path, name: str, owner: Path) -> InputError:
    return InputError(f"{path}: field 'name': '{name}' is already taken by {owner.name}; rename one")


def profile_file(name_or_path: str) -> Path:
    """Return the file of the profile that `load_profile` gives for a name or path that it knows."""
    if name_or_path.endswith(".toml"):
        return expanded(name_or_path)
    found = _find(name_or_path.strip().lower())
    if found is None:
        raise InputError(f"{name_or_path}: no such profile; see `n2n-edge profiles list`")
    return found


def list_profiles() -> tuple[Profile, ...]:
    """Return every valid profile that a name can reach, by name; the user's own hide shipped ones of the same name."""
    by_name: dict[str, Profile] = {}
    for folder in reversed(profile_folders()):
        by_name |= {profile.name: profile for profile in _survey(folder)[0]}
    return tuple(by_name[name] for name in sorted(by_name))


def profiles_with(profiles: Sequence[Profile], words: Sequence[str]) -> tuple[Profile, ...]:
    """Return the profiles that have all `words`, by family and name: in name, aliases, description, core or family."""

    def has(profile: Profile, word: str) -> bool:
        texts = (profile.name, *profile.aliases, profile.description, profile.core or "", profile.family or "")
        return any(_plain(word) in _plain(text) for text in texts)

    found = [profile for profile in profiles if all(has(profile, word) for word in words)]
    return tuple(sorted(found, key=lambda profile: (profile.family or "", profile.name)))


def _plain(text: str) -> str:
    """Return letters and digits alone, small: ``RK-3588 S`` as ``rk3588s``."""
    return "".join(each for each in text.lower() if each.isalnum())


def profile_errors() -> tuple[InputError, ...]:
    """Return what is wrong with profiles that `list_profiles` therefore leaves out."""
    return tuple(error for folder in profile_folders() for error in _survey(folder)[1])


def _survey(folder: Path) -> tuple[list[Profile], list[InputError]]:
    """Return the valid profiles of a folder, and what is wrong with the others."""
    owners: dict[str, Path] = {}
    profiles, errors = [], []
    for path in profile_files(folder):
        try:
            profile = read_profile(path)
            for name in (profile.name, *profile.aliases):
                if name in owners:
                    raise _taken(path, name, owners[name])
        except InputError as error:
            errors.append(error)
            continue
        owners |= dict.fromkeys((profile.name, *profile.aliases), path)
        profiles.append(profile)
    return profiles, errors


def read_profile(path: Path, text: str | None = None) -> Profile:
    """Return the profile in a TOML file (`text` stands in for the file's), ``"host"`` values filled in from here.

    Raises:
        InputError: one line with the file and the fields that are unknown, missing, out of range or contradictory.
    """
    text = read_text(path, "the path of a profile") if text is None else text
    values = read_toml(path, text)
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
