"""Data and teacher modules of the user's that raise, or end the process: one line and exit code 2, in every command."""

import logging
import sys

import pytest

from n2n_edge._example import teacher_path

MODULE = """
import os
import sys
import numpy as np

class Odd(BaseException):
    def __str__(self): raise ValueError("no text")

class Items:
    def __init__(self, length=lambda: 30, item=lambda i: (np.zeros((16, 16), np.uint8), i % 10)):
        self.length, self.item = length, item
    def __len__(self): return self.length()
    def __getitem__(self, index): return self.item(index)

class Lazy:
    def __array__(self, *a, **k): sys.exit(0)

class Hiding:
    def __getattribute__(self, name): sys.exit(0)

def raising(error):
    raise error

def call_exits(): sys.exit(0)
def call_exits_hard(): os._exit(0)
def call_exits_with_text(): sys.exit("text")
def call_exits_oddly(): sys.exit(Odd())
def call_raises(): raise RuntimeError("two\\nlines \\x1b[31m")
def call_odd(): raise Odd
def call_stops(): raise StopIteration
def call_deep(): return call_deep()
def length_exits(): return Items(length=lambda: sys.exit(0))
def length_negative(): return Items(length=lambda: -3)
def length_fraction(): return Items(length=lambda: 2.5)
def length_huge(): return Items(length=lambda: 10**30)
def item_exits(): return Items(item=lambda i: sys.exit(0))
def item_exits_hard(): return Items(item=lambda i: os._exit(0))
def item_raises(): return Items(item=lambda i: raising(KeyError(i)))
def item_odd(): return Items(item=lambda i: raising(Odd()))
def item_lazy(): return Items(item=lambda i: (Lazy(), 1))
def label_lazy(): return Items(item=lambda i: (np.zeros((16, 16), np.uint8), Lazy()))
def dataset_hides(): return Hiding()

def __getattr__(name):
    if name.startswith("lazy"):
        sys.exit(0)
    raise AttributeError(name)
"""
CALLS = [line.split("(")[0].removeprefix("def ") for line in MODULE.splitlines() if line.startswith("def ")][1:-1]
BODIES = {
    "ends": "import sys; sys.exit(0)",
    "exits": "import os; os._exit(0)",
    "raises": "raise BaseException('x')",
    "syntax": "def (:",
    "loops": "import m",
}


@pytest.fixture(autouse=True)
def _forget_modules():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name in ("own_module", "own_network") or name in BODIES:
            del sys.modules[name]


@pytest.mark.parametrize("function", [*CALLS, "lazy_name"])
def test_data_functions_that_fail(call, tmp_path, function):
    (tmp_path / "own_module.py").write_text(MODULE)
    gate = ("gate", teacher_path(), "--no-config", "--max-mb", 0.0001, "--min-accuracy", 0.9, "--junit", "j.xml")
    for command in (gate, ("compress", teacher_path(), "--out", "run")):
        code, out, err = call(*command, "--data", f"own_module:{function}")
        assert (code, out) == (2, ""), err
        last = [line for line in err.splitlines() if line.strip()][-1]
        assert f"own_module:{function}" in last
        assert "\x1b" not in last
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", BODIES)
def test_modules_that_fail_while_they_are_imported(call, tmp_path, name):
    (tmp_path / f"{name}.py").write_text(BODIES[name])
    for command in (
        ("gate", teacher_path(), "--no-config", "--min-accuracy", 0.9, "--data", f"{name}:x"),
        ("compress", teacher_path(), "--out", "run", "--data", f"{name}:x"),
        ("compress", f"{name}:x", "--out", "run", "--data", "builtin:digits"),
        ("inspect", f"{name}:x"),
    ):
        code, out, err = call(*command)
        assert (code, out) == (2, ""), err
        assert f"module '{name}'" in err


NETWORK = """
import sys
from torch import nn

class Net(nn.Module):
    def __init__(self, **methods):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3)
        self.methods = methods
    def forward(self, x): return self.methods.get("forward", self.layer)(x)
    def train(self, mode=True): self.__dict__.get("methods", {}).get("train", id)(mode); return super().train(mode)

def forward_exits(): return Net(forward=lambda x: sys.exit(0))
def forward_raises(): return Net(forward=lambda x: 1 / 0)
def train_exits(): return Net(train=sys.exit)
def call_exits(): sys.exit(0)
"""


@pytest.mark.parametrize("function", ["forward_exits", "forward_raises", "train_exits", "call_exits"])
def test_networks_that_fail(call, tmp_path, monkeypatch, function):
    monkeypatch.setattr(logging, "raiseExceptions", False)  # torch logs to the stderr of its first export, long closed
    (tmp_path / "own_network.py").write_text(NETWORK)
    code, out, err = call("inspect", f"own_network:{function}", "--input-shape", "1x8x8")
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1


def test_what_a_data_function_prints_stays_out_of_the_document(call, tmp_path):
    import json

    (tmp_path / "own_module.py").write_text(MODULE + "\ndef prints(): print('{}'); return Items()\n")
    words = ("gate", teacher_path(), "--no-config", "--min-accuracy", 0.01, "--data", "own_module:prints", "--json")
    code, out, _ = call(*words, "--mean", 0, "--std", 1)
    assert code in (0, 1)
    assert json.loads(out)["kind"] == "gate"


@pytest.mark.parametrize("raised", [SystemExit(0), SystemExit(), SystemExit(1), GeneratorExit()], ids=repr)
def test_an_exit_from_deep_within_a_command_is_not_the_commands_own(call, monkeypatch, raised):
    def stop(*_arguments: object) -> None:
        raise raised

    monkeypatch.setattr("n2n_edge.runs.gate.gate_models", stop)
    code, out, err = call("gate", teacher_path(), "--no-config", "--max-mb", 1)
    assert (code, out) == (2, "")
    assert "n2n-edge: code that 'gate' ran" in err


def test_commands_of_groups_end_by_their_own_codes(call):
    assert call("--version")[0] == 0
    assert call("profiles", "list")[0] == 0
    assert call("profiles", "show", "nothing")[0] == 2
    assert call("profiles", "--nonsense")[0] == 2
