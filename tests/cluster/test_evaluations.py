"""One suite for every implementation of evaluations, and what those on Ray do when a worker is lost."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from n2n_edge._example import teacher_path
from n2n_edge.cluster import pool
from n2n_edge.cluster.pool import RayEvaluations
from n2n_edge.errors import InputError, UnsuitableEnvironmentError
from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.teacher import Teacher, build, surviving
from n2n_edge.search.evaluations import (
    AHEAD,
    Candidate,
    Distiller,
    Evaluations,
    InProcess,
    Outcome,
    Pending,
    Request,
    SharedDistiller,
)
from n2n_edge.search.precision import CandidatePrecision
from tests.cluster.fake_ray import fake_ray
from tests.cluster.made_up import Counts, Harms

Open = Callable[..., Evaluations]

REAL = pytest.param("ray", marks=pytest.mark.slow)
"""Ray takes half a minute to start on a busy machine."""


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher.load(teacher_path())


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make ready what a test runs on: this process, threads in place of Ray's workers, or Ray."""
    where = str(request.param)
    if where == "threads":
        monkeypatch.setitem(sys.modules, "ray", fake_ray())
    elif where == "ray":
        request.getfixturevalue("local_ray")
    return where


@pytest.fixture
def opened(on: str, said: list[str]) -> Iterator[Open]:
    """What opens evaluations there."""
    made: list[Evaluations] = []

    def start(workers: int | None = 2, **settings: int) -> Evaluations:
        made.append(InProcess() if on == "process" else RayEvaluations(workers, tell=said.append, **settings))
        return made[-1]

    yield start
    for each in made:
        each.close()


everywhere = pytest.mark.parametrize("on", ["process", "threads", REAL], indirect=True)
on_workers = pytest.mark.parametrize("on", ["threads", REAL], indirect=True)


def requests(teacher: Teacher, distiller: Distiller, count: int, int8: frozenset[str] = frozenset()) -> list[Request]:
    """Return requests for so many candidates, each narrower than the one before."""
    precision = CandidatePrecision(teacher, "auto") if int8 else None
    shared = SharedDistiller("candidates", lambda: distiller)
    group = next(group for group in teacher.groups if group.shrinkable)

    def candidate(architecture: Architecture) -> Candidate:
        return Candidate(build(teacher, architecture), surviving(teacher, architecture), 3, int8, precision)

    narrow = [teacher.full.resize(group.name, group.width - number) for number in range(count)]
    return [Request("accuracy", each.key, shared, partial(candidate, each), ("stage", each.key[:8])) for each in narrow]


def run(evaluations: Evaluations, wanted: list[Request]) -> list[Outcome | None]:
    """Begin all as there is room, and wait for them."""
    begun: list[Pending] = []
    for request in wanted:
        while evaluations.full:
            evaluations.wait()
        begun.append(evaluations.begin(request))
    while any(pending.outcome is None for pending in begun):
        evaluations.wait()
    return [pending.outcome for pending in begun]


def expected(wanted: list[Request], distiller: Distiller) -> list[Outcome]:
    return [request.make().evaluated(distiller) for request in wanted]


@everywhere
def test_what_is_begun_gets_the_outcome_of_a_call(opened: Open, teacher: Teacher) -> None:
    evaluations = opened()
    wanted = requests(teacher, Counts(), 5)
    assert run(evaluations, wanted) == expected(wanted, Counts())
    evaluations.wait()  # nothing is under way: at once
    evaluations.settle()
    assert not evaluations.full
    # a candidate in int8 comes with what quantizes it
    (quantized,) = run(evaluations, requests(teacher, Counts(), 1, frozenset({teacher.regions[0].name})))
    assert quantized is not None
    assert quantized.accuracy == expected(wanted, Counts())[0].accuracy * 0.99


@on_workers
def test_a_worker_that_ends_one_finds_the_next_in_line(opened: Open, teacher: Teacher) -> None:
    evaluations = opened(1)
    first, *others = requests(teacher, Counts(), 1 + AHEAD)
    begun = [evaluations.begin(first)]
    for request in others:
        assert not evaluations.full
        begun.append(evaluations.begin(request))
    assert evaluations.full
    deadline = time.monotonic() + 300.0
    while begun[1].outcome is None and time.monotonic() < deadline:
        time.sleep(0.02)
        evaluations.begin(first)  # who begins another hears of what has ended meanwhile: nothing was waited for
    assert [pending.outcome for pending in begun[:2]] == expected([first, others[0]], Counts())


@everywhere
def test_the_distiller_is_made_once_for_all(opened: Open, teacher: Teacher) -> None:
    made: list[Distiller] = []

    def make() -> Distiller:
        made.append(Counts())
        return made[-1]

    shared = SharedDistiller("candidates", make)
    run(opened(), [replace(request, distiller=shared) for request in requests(teacher, Counts(), 3)])
    assert len(made) == 1


@everywhere
def test_what_an_evaluation_raises_comes_out(opened: Open, on: str, teacher: Teacher, tmp_path: Path) -> None:
    distiller = Harms("refuse", 1, tmp_path / "count", thread=on != "ray")
    with pytest.raises(InputError, match="gives no images: mend it"):
        run(opened(), requests(teacher, distiller, 1))


@on_workers
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("kill", r"ended \(killed, crashed"),
        ("fill", "no memory was left on "),
        ("freeze", "hasn't answered for 2 s"),
        pytest.param("hang", r"ended \(killed, crashed", marks=pytest.mark.slow),
    ],
)
def test_what_a_lost_worker_did_is_begun_again(
    opened: Open, on: str, teacher: Teacher, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    what: str, reason: str,
) -> None:  # fmt: skip
    if what == "hang" and on == "threads":
        pytest.skip("a thread can't be ended")
    if what in ("freeze", "hang"):
        monkeypatch.setenv("N2N_EDGE_STALL_S", "2")
    wanted = requests(teacher, Harms(what, 1, tmp_path / "count", thread=on != "ray"), 3)
    assert run(opened(), wanted) == expected(wanted, Counts())
    (line,) = [line for line in said if "begun again" in line]
    assert line.startswith(tuple(one.what for one in wanted))
    assert re.search(reason + r".*; begun again \(1 of 2\)$", line)


@on_workers
def test_what_is_lost_too_often_fails_alone(opened: Open, on: str, teacher: Teacher, tmp_path: Path) -> None:
    evaluations = opened(retries=1)
    (lost,) = run(evaluations, requests(teacher, Harms("kill", 2, tmp_path / "count", thread=on != "ray"), 1))
    assert lost is not None
    assert lost.failed is not None
    assert lost.failed.endswith("after 1 other tries")
    assert (tmp_path / "count").read_text() == ".."
    wanted = requests(teacher, Counts(), 1)
    assert run(evaluations, wanted) == expected(wanted, Counts())


@on_workers
def test_other_versions_are_refused(opened: Open, teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    known = pool.versions()
    monkeypatch.setattr(pool, "versions", lambda: {**known, "torch": "9.9"})
    with pytest.raises(UnsuitableEnvironmentError, match=f"has torch {known['torch']}, this machine has 9.9") as caught:
        run(opened(), requests(teacher, Counts(), 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("on", ["threads"], indirect=True)
def test_a_cluster_has_as_many_workers_as_there_is_room_for(
    opened: Open, teacher: Teacher, said: list[str], on: str
) -> None:
    assert opened(None, threads=2).width == 2
    assert said == ["evaluating on 2 workers of this machine, 2 threads each"]
    with pytest.raises(UnsuitableEnvironmentError, match="no node has 8 free cores for a worker"):
        _ = opened(None, threads=8).width


@pytest.mark.parametrize("on", [REAL], indirect=True)
def test_it_listens_on_the_loopback_interface_alone(opened: Open, teacher: Teacher) -> None:
    run(opened(), requests(teacher, Counts(), 1))
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
