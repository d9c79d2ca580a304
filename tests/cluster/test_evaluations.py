"""One suite for every implementation of evaluations, and what those on Ray do when a worker is lost."""

import re
from collections.abc import Callable, Iterator
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
from tests.cluster.made_up import Counts, Harms

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return Teacher.load(teacher_path())


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def workers() -> Iterator[RayEvaluations]:
    """Two workers for all tests that leave them whole."""
    with RayEvaluations(2) as made:
        yield made


@pytest.fixture(params=["in process", "ray"])
def evaluations(request: pytest.FixtureRequest, workers: RayEvaluations) -> Evaluations:
    return InProcess() if request.param == "in process" else workers


@pytest.fixture
def on_ray(said: list[str]) -> Iterator[Callable[..., RayEvaluations]]:
    made: list[RayEvaluations] = []

    def start(**settings: int) -> RayEvaluations:
        made.append(RayEvaluations(2, tell=said.append, **settings))
        return made[-1]

    yield start
    for each in made:
        each.close()


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


def test_what_is_begun_gets_the_outcome_of_a_call(evaluations: Evaluations, teacher: Teacher) -> None:
    wanted = requests(teacher, Counts(), 5)
    assert run(evaluations, wanted) == expected(wanted, Counts())
    evaluations.wait()  # nothing is under way: at once
    assert not evaluations.full


def test_a_candidate_in_int8_comes_with_what_quantizes_it(evaluations: Evaluations, teacher: Teacher) -> None:
    int8 = frozenset({teacher.regions[0].name})
    (plain,), (quantized,) = (run(evaluations, requests(teacher, Counts(), 1, names)) for names in (frozenset(), int8))
    assert plain is not None
    assert quantized is not None
    assert quantized.accuracy == plain.accuracy * 0.99


def test_the_distiller_is_made_once(evaluations: Evaluations, teacher: Teacher) -> None:
    made: list[Distiller] = []

    def make() -> Distiller:
        made.append(Counts())
        return made[-1]

    shared = SharedDistiller("candidates", make)
    run(
        evaluations,
        [Request(each.kind, each.key, shared, each.make, each.phases) for each in requests(teacher, Counts(), 3)],
    )
    assert len(made) == 1


def test_what_an_evaluation_raises_comes_out(evaluations: Evaluations, teacher: Teacher, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gives no images: mend it"):
        run(evaluations, requests(teacher, Harms("refuse", 1, tmp_path / "count"), 1))


@pytest.mark.parametrize(
    ("what", "said_of_it"),
    [
        ("kill", r"ended \(killed, crashed"),
        ("fill", "no memory was left"),
        pytest.param("hang", "ended", marks=pytest.mark.slow),
        pytest.param("freeze", "hasn't answered for 4 s", marks=pytest.mark.slow),
    ],
)
def test_what_a_lost_worker_did_is_begun_again(
    on_ray: Callable[..., RayEvaluations], teacher: Teacher, said: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, what: str, said_of_it: str,
) -> None:  # fmt: skip
    if what in ("hang", "freeze"):
        monkeypatch.setenv("N2N_EDGE_STALL_S", "4")
    evaluations = on_ray()
    wanted = requests(teacher, Harms(what, 1, tmp_path / "count"), 3)
    assert run(evaluations, wanted) == expected(wanted, Counts())
    lines = [line for line in said if "begun again" in line]
    assert len(lines) == 1
    assert re.search(said_of_it + r".*; begun again \(1 of 2\)$", lines[0])


def test_what_is_lost_too_often_fails_alone(
    on_ray: Callable[..., RayEvaluations], teacher: Teacher, said: list[str], tmp_path: Path
) -> None:
    evaluations = on_ray(retries=1)
    (lost,) = run(evaluations, requests(teacher, Harms("kill", 2, tmp_path / "count"), 1))
    assert lost is not None
    assert lost.failed is not None
    assert lost.failed.endswith("after 1 other tries")
    assert (tmp_path / "count").read_text() == ".."
    wanted = requests(teacher, Counts(), 1)
    assert run(evaluations, wanted) == expected(wanted, Counts())


def test_other_versions_are_refused(
    on_ray: Callable[..., RayEvaluations], teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = pool.versions()
    monkeypatch.setattr(pool, "versions", lambda: {**known, "torch": "9.9"})
    with pytest.raises(UnsuitableEnvironmentError, match=f"has torch {known['torch']}, this machine has 9.9"):
        run(on_ray(), requests(teacher, Counts(), 1))


def test_it_listens_on_the_loopback_interface_alone(workers: RayEvaluations, teacher: Teacher) -> None:
    run(workers, requests(teacher, Counts(), 1))
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
