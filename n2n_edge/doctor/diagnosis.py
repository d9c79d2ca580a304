"""Everything that is looked at, in order."""

from collections.abc import Iterator

from n2n_edge.doctor.check import Check, Diagnosis
from n2n_edge.doctor.packages import OPTIONAL, base_packages, extra_packages, import_check
from n2n_edge.doctor.places import folders, ssh_client
from n2n_edge.doctor.training import training_check
from n2n_edge.versions import first_version

__all__ = ["diagnose"]


def diagnose(*, imports: bool = False) -> Diagnosis:
    """Look at this machine; with `imports`, torch, torchvision and timm are imported too, each in its own process.

    Where torch is installed, a convolution that some processors' kernels fail at is trained, in a process of its own.
    """
    base = tuple(base_packages())
    checks = [*base]
    if not any(check.status == "missing" for check in base):  # nothing else could be imported
        checks += _measured()
    checks += extra_packages()
    if first_version("torch") is not None:
        checks.append(training_check())
    if imports:
        checks += [import_check(name) for name in ("torch", *OPTIONAL) if first_version(name) is not None]
    checks.append(ssh_client())
    if not any(check.status == "missing" for check in base):
        checks += folders()
    return Diagnosis(tuple(checks))


def _measured() -> Iterator[Check]:
    from n2n_edge.doctor.measuring import measuring

    return measuring()
