import pytest

from n2n_edge.errors import BudgetMissedError, InputError
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
