"""The front of any journal: nothing in it is beaten by what the journal holds."""

import tempfile
from functools import cache
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from n2n_edge.devices.registry import load_profile
from n2n_edge.graph.architecture import Architecture
from n2n_edge.metrics.figures import Figure
from n2n_edge.runs.devices import profiles_meta
from n2n_edge.runs.folder import RunFolder
from n2n_edge.runs.front import Axis, read_trials
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.search.store import Journal
from n2n_edge.search.trial import Trial, TrialCosts

DEVICES = ("raspberry-pi-4", "jetson-orin-nano")
COSTS = ("params", "size_mb", "macs", "memory_bound_mb")

few = st.sampled_from([0.5, 1.0, 2.0, 3.0])  # few distinct values, so that ties are common
candidates = st.builds(
    lambda stage, figures, latencies, accuracy: (stage, dict(zip(COSTS, figures, strict=True)), latencies, accuracy),
    st.sampled_from(["removal", "shrinkage"]),
    st.tuples(few, few, few, few),
    st.dictionaries(st.sampled_from(DEVICES), few),
    st.one_of(st.none(), st.sampled_from([0.0, 0.5, 0.9, 1.0])),
)


@cache
def devices_meta() -> dict[str, object]:
    return profiles_meta([load_profile(device) for device in DEVICES])


@settings(deadline=None, max_examples=40)
@given(st.lists(candidates, min_size=1, max_size=12))
def test_no_candidate_of_a_journal_beats_its_front(rows: list[tuple[str, dict[str, float], dict[str, float], float]]):
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name))
        folder.begin(CompressSettings(device=DEVICES))
        positions = {"removal": 0, "shrinkage": 0}
        with Journal.create(folder.journal, devices_meta()) as journal:
            for stage, costs, latencies, accuracy in rows:
                figures = {device: Figure(value, "ms", "calibrated") for device, value in latencies.items()}
                static = TrialCosts(**costs, latencies=figures)  # type: ignore[arg-type]
                journal.record_trial(
                    Trial(
                        Architecture(), static, 0.0, accuracy is not None, score=accuracy, stage=stage,
                        number=positions[stage],
                    )
                )  # fmt: skip
                positions[stage] += 1
        found = read_trials(folder.path)
        assert [each.number for each in found.trials] == list(range(1, len(rows) + 1))
        for axis in [*(Axis(cost, None) for cost in COSTS), *(Axis("latency_ms", device) for device in DEVICES)]:
            front = found.front(axis)
            for one in front:
                for other in found.trained:
                    mine, theirs = one.on(axis), other.on(axis)
                    if theirs is None:
                        continue
                    assert mine is not None
                    assert one.metric is not None
                    assert other.metric is not None
                    beats = theirs.value <= mine.value and other.metric.value >= one.metric.value
                    assert not beats or (theirs.value, other.metric.value) == (mine.value, one.metric.value)
            known = [each for each in found.trained if each.on(axis) is not None]
            assert bool(front) == bool(known)
