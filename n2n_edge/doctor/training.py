"""Whether torch trains strided 1x1 convolutions on this processor, tried in a process of its own."""

import signal
import subprocess
import sys
from collections.abc import Sequence

from n2n_edge.doctor.check import Check, Status
from n2n_edge.foreign import printable

__all__ = ["TRIAL", "training_check"]

LIMIT_S = 90.0

TRIAL = """
import torch
print(torch.__version__, flush=True)
torch.manual_seed(0)
for threads in (1, 2):
    torch.set_num_threads(threads)
    for channels in (4, 12):
        layer = torch.nn.Conv2d(channels, 8, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
        for _ in range(100):
            images = torch.randn(128, channels, 16, 16).contiguous(memory_format=torch.channels_last)
            layer(images).square().mean().backward()
            layer.zero_grad()
print("trained", flush=True)
"""
"""The convolution whose backward pass writes past its workspace where oneDNN has a kernel for AVX2 alone: channels last
and fewer than 8 of them (https://github.com/uxlfoundation/oneDNN/issues/6035). With one thread the process is aborted
sooner or later, with two it may wait for ever."""


def training_check(command: Sequence[str] = (sys.executable, "-c", TRIAL), limit_s: float = LIMIT_S) -> Check:
    """Train the convolution in another process, which may crash or hang, and tell what came of it."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False)
        said, code, errors = done.stdout, done.returncode, done.stderr
    except subprocess.TimeoutExpired as error:
        said, code, errors = error.stdout or b"", None, b""
    except OSError as error:
        said, code, errors = b"", 1, str(error).encode()
    lines = _lines(said)
    version = lines[0] if lines else ""
    if not version:
        last = (_lines(errors) or ["no message"])[-1]
        why = f"torch wasn't imported within {limit_s:g} s" if code is None else f"torch can't be imported: {last}"
        return _check("limited", why, "see `n2n-edge doctor --imports`")
    if code == 0 and lines[-1] == "trained":
        return _check("ok", f"torch {version} trains strided 1x1 convolutions on this processor")
    how = "hangs" if code is None else f"crashes ({_reason(code)})"
    return _check(
        "limited",
        f"torch {version} {how} in strided 1x1 convolutions with few channels on this processor",
        "n2n-edge's own training avoids them; torch code of your own on such networks is not protected: run it with "
        "ONEDNN_MAX_CPU_ISA=SSE41, or slice with [:, :, ::2, ::2] before a convolution of stride 1",
    )


def _lines(output: bytes) -> list[str]:
    return [printable(line) for line in output.decode(errors="replace").strip().splitlines()]


def _reason(code: int) -> str:
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"


def _check(status: Status, found: str, remedy: str = "") -> Check:
    return Check("extras", "torch kernels", status, found, "training", remedy)
