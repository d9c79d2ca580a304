"""Control groups, new and old, on made-up trees of files."""

from pathlib import Path

import pytest

from n2n_edge.measure.worker import memory


def put(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_group_is_made_where_the_memory_controller_is_handed_down(tmp_path: Path) -> None:
    put(tmp_path / "cgroup.controllers", "cpu memory")
    put(tmp_path / "cgroup.subtree_control", "cpu memory")

    (first, *_) = memory.cgroup_parents(tmp_path)

    assert first == (tmp_path, [("memory.max", None, True), ("memory.swap.max", 0, False)])


def test_no_group_where_it_is_not(tmp_path: Path) -> None:
    put(tmp_path / "cgroup.controllers", "cpu")
    put(tmp_path / "cgroup.subtree_control", "cpu")

    assert memory.cgroup_parents(tmp_path) == []
    assert memory.cgroup_parents(tmp_path / "none") == []


def test_old_control_groups_limit_swap_as_well(tmp_path: Path) -> None:
    put(tmp_path / "memory" / "memory.limit_in_bytes", "0")

    assert memory.cgroup_parents(tmp_path)[-1] == (
        tmp_path / "memory",
        [("memory.limit_in_bytes", None, True), ("memory.memsw.limit_in_bytes", None, False)],
    )


def test_without_permission_the_limit_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "cgroup.controllers", "memory")
    put(tmp_path / "cgroup.subtree_control", "memory")
    monkeypatch.setattr(memory.shutil, "which", lambda name: None)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(memory.Path, "mkdir", refuse)

    assert memory.limit_memory(1_000_000, tmp_path) == {"cgroup": None, "prefix": []}


@pytest.mark.parametrize(
    ("name", "text", "kills"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n", 1),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", 2),
        ("memory.events", "oom_kill 0\n", 0),
        ("other", "", 0),
    ],
)
def test_kills_are_counted(tmp_path: Path, name: str, text: str, kills: int) -> None:
    put(tmp_path / name, text)

    assert memory.oom_kills(str(tmp_path)) == kills
