"""The form of a diagnosis: one line per thing that was looked at."""

from dataclasses import dataclass
from typing import Literal, TypedDict

__all__ = ["Check", "CheckJson", "Diagnosis", "Group", "Status"]

Status = Literal["ok", "limited", "missing"]
Group = Literal["base", "measuring", "extras", "tools", "folders"]


class CheckJson(TypedDict):
    """One check of the document; `remedy` is empty where there is nothing to mend."""

    group: Group
    name: str
    status: Status
    needed: bool
    found: str
    purpose: str
    remedy: str


@dataclass(frozen=True)
class Check:
    """What was `found` of one thing, what it is for, and how to mend it where it is limited or missing.

    `needed` tells whether the commands that need no torch can't do without.
    """

    group: Group
    name: str
    status: Status
    found: str
    purpose: str
    remedy: str = ""
    needed: bool = False

    def to_json(self) -> CheckJson:
        """Return it as a JSON object."""
        return {
            "group": self.group,
            "name": self.name,
            "status": self.status,
            "needed": self.needed,
            "found": self.found,
            "purpose": self.purpose,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was looked at, in the order in which it is shown."""

    checks: tuple[Check, ...]

    @property
    def works(self) -> bool:
        """Whether nothing is missing that the base needs."""
        return not any(check.needed and check.status == "missing" for check in self.checks)
