"""How a repository names a file."""

from pathlib import Path

from n2n_edge.reading import real_path

__all__ = ["repository_path"]


def repository_path(path: Path) -> str:
    """Return a path relative to the present folder, which in CI is the repository's root; one outside as it is."""
    try:
        resolved, root = real_path(path), real_path(Path.cwd())
    except OSError:  # the present folder is gone
        return path.as_posix()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else path.as_posix()
