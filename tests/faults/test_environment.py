"""Disks that are full or read-only, and damaged journals, under a run: one line, nothing lost, and it goes on after."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from tests.faults.kills import Timeline, begin, finished, killed, outcome_of, words
from tests.fork_server import Forks

pytestmark = pytest.mark.slow


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """Give a disk of so many bytes."""
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], stderr=subprocess.DEVNULL
    ).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def refused(forks: Forks, out: Path, given: list[str] | None) -> tuple[int, str]:
    """Begin a run, or go on with one, and return its exit code and the last line that it said."""
    log = out.parent / f"{out.name}.log"
    with begin(forks, out, given, log=log.parent.parent / "refused.log") as process:
        assert process.stdout is not None
        process.stdout.read()
        code = process.wait(600)
    said = (log.parent.parent / "refused.log").read_text()
    assert "Traceback" not in said
    assert "unexpected" not in said
    return code, said.strip().splitlines()[-1]


@pytest.mark.parametrize("size", ["100k", "240k", "360k"])
def test_a_full_disk_ends_a_run_that_goes_on_when_there_is_room(
    size: str, run_forks: Forks, whole: tuple[Path, Timeline], tmp_path: Path
) -> None:
    with disk(tmp_path / "disk", size) as folder:
        out = folder / "run"
        code, line = refused(run_forks, out, words(whole[0].parent))
        assert (code, "disk is full; make room, then go on with `n2n-edge compress --resume" in line) == (3, True), line
        remount(folder, "size=50m")
        finished(run_forks, out, None if (out / "run.toml").exists() else words(whole[0].parent))
        assert outcome_of(out) == outcome_of(whole[0])


def test_a_read_only_disk_is_named_and_the_run_goes_on_when_it_is_not(
    run_forks: Forks, whole: tuple[Path, Timeline], tmp_path: Path
) -> None:
    with disk(tmp_path / "disk", "50m") as folder:
        out = folder / "run"
        killed(run_forks, out, words(whole[0].parent), "removal", 0.5)
        remount(folder, "ro")
        code, line = refused(run_forks, out, None)
        assert code in (2, 3)
        assert str(out) in line
        code, line = refused(run_forks, folder / "other", words(whole[0].parent))
        assert (code, "can't be written" in line) == (2, True), line
        remount(folder, "rw")
        finished(run_forks, out)
        assert outcome_of(out) == outcome_of(whole[0])


def test_a_damaged_page_of_the_journal_is_named_and_a_copy_goes_on(
    run_forks: Forks, whole: tuple[Path, Timeline], tmp_path: Path
) -> None:
    first = tmp_path / "first"
    killed(run_forks, first, words(whole[0].parent), "final distillation", 0.0)
    random, named = Random(7), 0
    for number in range(8):
        out = tmp_path / f"damaged-{number}"
        shutil.copytree(first, out)
        _damage(out, random)
        code, line = refused(run_forks, out, None)
        if code == 0:  # a page that nothing reads any more
            assert outcome_of(out)[:2] == outcome_of(whole[0])[:2]
            continue
        named += 1
        assert code == 2
        assert "journal" in line
        for path in first.glob("journal*"):
            shutil.copyfile(path, out / path.name)
    assert named
    finished(run_forks, out)
    assert outcome_of(out) == outcome_of(whole[0])


def _damage(out: Path, random: Random) -> None:
    """Write noise over a page, or cut the file there; what the log beside it holds is in the file first."""
    import sqlite3

    path = out / "journal.sqlite"
    database = sqlite3.connect(path)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    data = bytearray(path.read_bytes())
    page = random.randrange(len(data) // 4096) * 4096
    if random.random() < 0.3:
        del data[page:]
    else:
        data[page : page + 4096] = random.choice((bytes(4096), os.urandom(4096), data[:4096]))
    path.write_bytes(bytes(data))
