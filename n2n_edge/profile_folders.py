"""Where profiles lie, and what they are called: little enough for a shell to ask while somebody types."""

import os
import tomllib
from pathlib import Path

__all__ = ["profile_names", "shipped_profile_folder", "user_profile_folder"]


def user_profile_folder() -> Path:
    """Return the folder of the user's own profiles: below ``$XDG_CONFIG_HOME``, else ``~/.config``."""
    configured = os.environ.get("XDG_CONFIG_HOME")
    base = Path(configured) if configured else Path.home() / ".config"
    return base / "n2n-edge" / "profiles"


def shipped_profile_folder() -> Path:
    """Return the folder of the shipped profiles: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parent / "profiles"


def profile_names() -> list[str]:
    """Return every name and alias that a profile claims, valid or not, sorted."""
    names: set[str] = set()
    for folder in (user_profile_folder(), shipped_profile_folder()):
        for path in folder.glob("*.toml"):
            try:
                text = path.read_text(encoding="utf-8")
                values = tomllib.loads(text.partition("\n[")[0])  # names stand before the first table
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
                continue
            aliases = values.get("aliases", [])
            found = [values.get("name"), *(aliases if isinstance(aliases, list) else [])]
            names.update(name for name in found if isinstance(name, str))
    return sorted(names)
