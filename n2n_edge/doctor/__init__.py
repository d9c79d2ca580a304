"""What works on this machine, what doesn't, and how to mend it."""

from n2n_edge.doctor.check import Check, Diagnosis, Group, Status
from n2n_edge.doctor.diagnosis import diagnose

__all__ = ["Check", "Diagnosis", "Group", "Status", "diagnose"]
