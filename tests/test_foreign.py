import io
import os
import sys
import threading

import numpy as np
import pytest

from n2n_edge.errors import BudgetMissedError, InputError, lack_behind
from n2n_edge.foreign import foreign_code, printable


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("conv1/Größe 😀", "conv1/Größe 😀"),
        ("a\n::stop-commands::x\r", "a\\n::stop-commands::x\\r"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202eevil\u2066\u2028", "\\u202eevil\\u2066\\u2028"),
        ("\udcff", "\\udcff"),
        (b"raw", "b'raw'"),
    ],
)
def test_printable_text_is_one_line_without_controls(given, expected):
    assert printable(given) == expected
    assert printable(given).isprintable()


@pytest.mark.parametrize("raised", [ValueError("no"), SystemExit(0), SystemExit(), BaseException("x"), GeneratorExit()])
def test_whatever_foreign_code_raises_is_bad_input(raised):
    with pytest.raises(InputError, match=r"^--data m:load "), foreign_code("--data m:load"):
        raise raised


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), BudgetMissedError("own")])
def test_interrupts_and_own_errors_pass(raised):
    with pytest.raises(type(raised)), foreign_code("--data m:load"):
        raise raised


class Wordless:
    """An object that fails at saying what it is."""

    def __init__(self, raised):
        self.raised = raised

    def __str__(self):
        raise self.raised


@pytest.mark.parametrize("kind", [SystemExit, RuntimeError, BaseException, OSError])
@pytest.mark.parametrize(
    "inner", [ValueError("no"), SystemExit(0), Wordless(SystemExit(0))], ids=["raises", "ends", "odd"]
)
def test_errors_whose_text_is_foreign_code_are_told_without_it(kind, inner):
    raised = inner if isinstance(inner, BaseException) else ValueError(inner)
    with pytest.raises(InputError, match=r"^--data m:load [^\n]*$"), foreign_code("--data m:load"):
        raise kind(Wordless(raised))
    assert lack_behind(kind(Wordless(raised))) is None


def test_the_name_of_an_error_is_foreign_text():
    with pytest.raises(InputError, match=r"raised E\\n::error::x\\x1b"), foreign_code("--data m:load"):
        raise type("E\n::error::x\x1b[31m", (Exception,), {})("x")


@pytest.mark.parametrize("put", [None, io.StringIO()], ids=["nothing", "another"])
def test_foreign_code_keeps_no_stream_of_the_process(put):
    before = sys.stdout, sys.stderr
    with foreign_code("--data m:load"):
        sys.stdout = sys.stderr = put
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize(
    "does",
    [
        "torch.set_grad_enabled(False)",
        "torch.set_default_dtype(torch.float64)",
        "torch.set_default_device('meta')",
        "np.seterr(all='raise')",
    ],
)
def test_foreign_code_sets_nothing_for_the_whole_process(does):
    torch = pytest.importorskip("torch")
    weights = torch.nn.Parameter(torch.ones(1))
    with foreign_code("--data m:load"):
        exec(does, {"torch": torch, "np": np})

    (weights * torch.ones(1)).sum().backward()
    assert weights.grad.dtype == torch.float32
    assert weights.grad.tolist() == [1.0]
    assert np.geterr()["over"] != "raise"


def test_foreign_code_cannot_end_the_process_but_what_it_forks_can():
    with pytest.raises(InputError, match=r"the module ended the process \(exit 0\)"), foreign_code("the module"):
        os._exit(0)

    def in_a_thread():
        in_a_thread.status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with foreign_code("the module"):
        child = os.fork()
        if child == 0:
            os._exit(7)
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
    assert in_a_thread.status == 7
