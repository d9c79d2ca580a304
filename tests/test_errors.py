import pytest

from n2n_edge.errors import InputError, UnsuitableEnvironmentError, lack_behind
from n2n_edge.foreign import foreign_file

UNMAPPED = ImportError("libtorch_cpu.so: failed to map segment from shared object")


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        (MemoryError(), "memory"),
        (UNMAPPED, "memory"),
        (OSError("[Errno 12] Cannot allocate memory"), "memory"),
        (RuntimeError("can't start new thread"), "threads"),
        (caused(ImportError("numpy"), UNMAPPED), "memory"),
        (ImportError("No module named 'x'"), None),
        (ValueError("failed to map segment"), None),
    ],
)
def test_what_there_is_too_little_of(error: Exception, lack: str | None) -> None:
    assert lack_behind(error) == lack


@pytest.mark.parametrize(
    ("text", "in_python", "on_command_line"),
    [
        ("‹max_mb› 0: give one above 0", "max_mb 0: give one above 0", "--max-mb 0: give one above 0"),
        ("allow more (‹max_time_s›)", "allow more (max_time_s)", "allow more (--max-time)"),
    ],
)
def test_settings_are_named_as_python_and_as_the_command_line_have_them(text, in_python, on_command_line):
    with pytest.raises(InputError) as caught, foreign_file("m.onnx"):
        raise InputError(text)

    assert str(caught.value) == f"m.onnx: {in_python}"
    assert caught.value.on_command_line() == f"m.onnx: {on_command_line}"


def test_a_file_is_not_blamed_for_little_memory() -> None:
    with pytest.raises(UnsuitableEnvironmentError, match="m: there is too little memory"), foreign_file("m"):
        raise UNMAPPED
