"""Where profiles lie, and what they are called: little enough for a shell to ask while somebody types."""

import os
import re
import tomllib
from pathlib import Path

__all__ = ["claimed_names", "profile_files", "profile_folders", "profile_names", "user_profile_folder"]

_HEAD_BYTES = 100_000
_NAME = re.compile(r"""^name\s*=\s*["']([^"'\n]+)["']""", re.MULTILINE)


def user_profile_folder() -> Path | None:
    """Return the folder of the user's own profiles: below ``$XDG_CONFIG_HOME``, else ``~/.config``.

    None where the user has no home, as in a container whose user is a mere number.
    """
    configured = os.environ.get("XDG_CONFIG_HOME")
    try:
        base = Path(configured) if configured else Path.home() / ".config"
    except RuntimeError:
        return None
    return base / "n2n-edge" / "profiles"


def profile_folders() -> tuple[Path, ...]:
    """Return the folders that hold profiles, the user's own before the shipped ones."""
    own = user_profile_folder()
    return (_shipped_folder(),) if own is None else (own, _shipped_folder())


def profile_files(folder: Path) -> list[Path]:
    """Return the profiles of a folder, sorted; none where there is no folder, or none that may be looked into."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".toml")
    except OSError:
        return []


def claimed_names(path: Path) -> tuple[str, ...]:
    """Return the name and the aliases that a profile claims, valid or not; its file's name where it gives none."""
    try:
        if not path.is_file():
            return (path.stem,)
        with path.open("rb") as stream:
            text = stream.read(_HEAD_BYTES).decode("utf-8", "replace")
    except OSError:
        return (path.stem,)
    try:
        values = tomllib.loads(text.partition("\n[")[0])  # names stand before the first table
    except (ValueError, RecursionError):
        found = _NAME.search(text)
        return (path.stem if found is None else found[1],)
    name, aliases = values.get("name"), values.get("aliases")
    others = [alias for alias in aliases if isinstance(alias, str)] if isinstance(aliases, list) else []
    return (name if isinstance(name, str) else path.stem, *others)


def profile_names() -> list[str]:
    """Return every name and alias that a profile claims, valid or not, sorted."""
    return sorted(
        {name for folder in profile_folders() for path in profile_files(folder) for name in claimed_names(path)}
    )


def _shipped_folder() -> Path:
    """Return the folder of the shipped profiles: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parent / "profiles"
