from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.measure.sshd import MISSING, SSHD, Server, running_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    if SSHD is None:
        pytest.skip(MISSING)
    with running_server(tmp_path / "server") as found:
        monkeypatch.setenv("N2N_EDGE_SSH", found.ssh)
        yield found
