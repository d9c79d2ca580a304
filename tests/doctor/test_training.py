"""What the doctor makes of the process that trains the convolution, however that ends."""

import sys
from pathlib import Path

import pytest

from n2n_edge.doctor.training import TRIAL, training_check
from n2n_edge.versions import first_version

IMPORTED = "import os, sys, time; print('2.13.0', flush=True); "


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        (IMPORTED + "print('trained')", "ok", "torch 2.13.0 trains strided 1x1 convolutions"),
        (IMPORTED + "os.abort()", "limited", "torch 2.13.0 crashes (SIGABRT) in strided 1x1 convolutions"),
        (IMPORTED + "os.kill(os.getpid(), 11)", "limited", "crashes (SIGSEGV)"),
        (IMPORTED + "print('trained', flush=True); os.abort()", "limited", "crashes (SIGABRT)"),
        (IMPORTED + "sys.exit(0)", "limited", "crashes (exit code 0)"),
        (IMPORTED + "sys.exit(3)", "limited", "crashes (exit code 3)"),
        (IMPORTED + "time.sleep(600)", "limited", "torch 2.13.0 hangs in strided 1x1 convolutions"),
        ("import time; time.sleep(600)", "limited", "torch wasn't imported within 1 s"),
        ("raise ImportError('libtorch.so: cannot open')", "limited", "can't be imported: ImportError: libtorch.so"),
        (IMPORTED.replace("2.13.0", "\\x1b[31m2") + "os.abort()", "limited", "torch \\x1b[31m2 crashes"),
    ],
)
def test_the_end_of_the_process_is_told(code: str, status: str, says: str) -> None:
    found = training_check([sys.executable, "-c", code], limit_s=1.0 if "sleep" in code else 60.0)

    assert (found.status, found.needed) == (status, False)
    assert says in found.found
    if "1x1 convolutions with few channels" in found.found:
        assert "n2n-edge's own training avoids them" in found.remedy
        assert "torch code of your own on such networks is not protected" in found.remedy


def test_a_program_that_can_not_be_started_is_told(tmp_path: Path) -> None:
    found = training_check([str(tmp_path / "no-such-python")])

    assert found.status == "limited"
    assert "No such file" in found.found


@pytest.mark.skipif(first_version("torch") is None, reason="torch isn't installed")
def test_torch_is_really_tried() -> None:
    found = training_check()

    assert found.found.startswith(f"torch {first_version('torch')}")
    assert (found.status == "ok") == ("trains" in found.found)
    assert "stride=2" in TRIAL
