"""Candidates of a run as its journal tells them."""

from pathlib import Path

import pytest

from n2n_edge.errors import InputError
from n2n_edge.runs.candidates import listed_candidates
from n2n_edge.search.journal import Candidate, Journal


@pytest.mark.parametrize("stage", ["", "final", "removal\n"])
def test_candidates_of_a_stage_that_no_run_has_are_damage(tmp_path: Path, stage: str) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal.create(path, {}) as journal:
        journal.record_candidate(Candidate(stage, 0, 0, (1,), "a", {}, {}, 0.5, 0.5, True, "proxy"))
        with pytest.raises(
            InputError, match=r"journal\.sqlite is damaged \(stage of a candidate: [^\n]*new run"
        ) as caught:
            listed_candidates(journal)
    assert "\n" not in str(caught.value)
