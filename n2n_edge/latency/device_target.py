"""Where and how models are run for a device: on this host, within the device's limits here, or on the device itself."""

from n2n_edge.devices.profile import Profile
from n2n_edge.errors import InputError
from n2n_edge.measure.ssh import open_target
from n2n_edge.measure.target import HostTarget, Target
from n2n_edge.metrics.figures import MB

__all__ = ["HOST_LIMITED", "open_place", "running_on"]

HOST_LIMITED = "host-limited"
"""The target that is this host within a profile's cores and memory."""


def open_place(target: str, profile: Profile, threads: int | None = None, limit_bytes: int | None = None) -> Target:
    """Return the target that ``host``, ``host-limited`` or an ``ssh://`` address names.

    `limit_bytes` limits the memory of its workers; ``host-limited`` takes the profile's memory and cores, of these no
    more than `threads`.

    Raises:
        InputError: no such target, or ``host-limited`` with the profile of this host.
        UnsuitableEnvironmentError: there is no ssh here.
    """
    if target != HOST_LIMITED:
        return open_target(target, limit_bytes)
    if profile.is_host:
        raise InputError(f"‹target› {HOST_LIMITED}: within the limits of which board? name it with ‹device›")
    own_bytes = round(profile.usable_memory_mb * MB)
    cores = min(profile.cores, threads or profile.cores)
    return HostTarget(limit_bytes=limit_bytes or own_bytes, limited_to=profile.name, cores=cores)


def running_on(
    target: str, profile: Profile, threads: int | None, providers: tuple[str, ...]
) -> tuple[int | None, tuple[str, ...]]:
    """Return threads and providers for a target, those that were left open from its own profile.

    A profile speaks for this host if it is the host's, for a board if it isn't; ``host-limited`` takes its threads.
    """
    if profile.is_host != target.startswith("ssh:"):
        return threads or profile.default_threads, providers or profile.providers
    if target == HOST_LIMITED:
        return threads or profile.default_threads, providers
    return threads, providers
