"""How a repository names a file."""

from pathlib import Path

__all__ = ["repository_path"]


def repository_path(path: Path) -> str:
    """Return a path relative to the present folder, which in CI is the repository's root; one outside as it is."""
    resolved, root = path.resolve(), Path.cwd().resolve()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else path.as_posix()
