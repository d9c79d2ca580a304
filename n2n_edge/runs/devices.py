"""The devices of a run: loaded when it begins, and kept in its journal from then on."""

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from n2n_edge.calibration.timings import parse_timing, with_timings
from n2n_edge.devices.profile import Profile
from n2n_edge.devices.registry import load_profile
from n2n_edge.errors import InputError

__all__ = ["load_profiles", "profiles_meta", "profiles_of_run"]


def load_profiles(
    names: Sequence[str], measured: Sequence[str] = (), runtime: str | None = None
) -> tuple[Profile, ...]:
    """Return the profiles of devices, given by names or files, in that order, each under `runtime` or its own.

    `measured` are timings of the first one, such as ``model.onnx=12.3ms``.

    Raises:
        InputError: an unknown device or runtime, a file that isn't a profile, two names of the same device, or a wrong
            timing.
    """
    given: dict[str, str] = {}
    profiles: list[Profile] = []
    for name in names:
        profile = load_profile(name).under(runtime)
        if profile.name in given:
            raise InputError(
                f"‹device› {name}: {given[profile.name]} is given already, and both are {profile.name}; "
                "name every device once"
            )
        given[profile.name] = name
        if measured and not profiles:
            profile = with_timings(profile, [parse_timing(each) for each in measured])
        profiles.append(profile)
    return tuple(profiles)


def profiles_meta(profiles: Sequence[Profile]) -> dict[str, object]:
    """Return what a journal keeps of the devices: the first under ``profile``, any others beside it."""
    first, *others = [profile.model_dump_json() for profile in profiles]
    return {"profile": first, **({"other_profiles": others} if others else {})}


def profiles_of_run(
    meta: Mapping[str, object],
    run: object,
    names: Sequence[str],
    measured: Sequence[str] = (),
    runtime: str | None = None,
) -> tuple[Profile, ...]:
    """Return the profiles that a run began with, from its journal's `meta`; those of `names` where it holds none.

    `measured` and `runtime` are as for `load_profiles`.

    Raises:
        InputError: another version of n2n-edge wrote them, or as `load_profiles` does.
    """
    return _journalled_profiles(meta, run) or load_profiles(names, measured, runtime)


def _journalled_profiles(meta: Mapping[str, object], run: object) -> tuple[Profile, ...]:
    first, others = meta.get("profile"), meta.get("other_profiles", [])
    if first is None:
        return ()
    try:
        return tuple(Profile.model_validate_json(str(text)) for text in [first, *_listed(others)])
    except ValidationError as error:
        raise InputError(f"{run}: begun by another version of n2n-edge; start a new run with another ‹out›") from error


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []
