"""What a shell offers behind options whose values are names."""

__all__ = ["device_names"]


def device_names(incomplete: str) -> list[str]:
    """Return the names and aliases of profiles that begin so."""
    from n2n_edge.devices.folders import profile_names

    return [name for name in profile_names() if name.startswith(incomplete)]
