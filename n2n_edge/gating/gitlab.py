"""A gate as a GitLab code-quality report, which a merge request shows beside the changes.

The form: GitLab's documentation, "Code Quality report format".
"""

import hashlib
import json
from collections.abc import Sequence

from n2n_edge.foreign import encodable
from n2n_edge.gating.check import Gated
from n2n_edge.gating.repository_path import repository_path
from n2n_edge.metrics.outcome import Outcome

__all__ = ["gitlab_report"]

_SEVERITIES: dict[Outcome, str] = {"fail": "critical", "inconclusive": "minor"}


def gitlab_report(found: Sequence[Gated]) -> str:
    """Return the JSON list: an entry per check that didn't pass, known again from run to run by model and question."""
    entries = []
    for gated in found:
        path = repository_path(gated.model)
        for check in gated.checks:
            if check.outcome == "pass":
                continue
            name = f"n2n-edge-{check.cost.replace('_', '-')}"
            entries.append(
                {
                    "description": f"{check.asked}: {check.reason}",
                    "check_name": name,
                    "fingerprint": hashlib.sha256(
                        f"{path}\n{check.cost}\n{check.asked.split()[0]}".encode("utf-8", "backslashreplace")
                    ).hexdigest(),
                    "severity": _SEVERITIES[check.outcome],
                    "location": {"path": path, "lines": {"begin": 1}},
                }
            )
    return json.dumps(encodable(entries), indent=2) + "\n"
