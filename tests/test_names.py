import pytest

from n2n_edge.names import names_of


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.onnx"], ["a.onnx"]),
        (["x/a.onnx", "x/b.onnx"], ["a.onnx", "b.onnx"]),
        (["old/m.onnx", "new/m.onnx"], ["old/m.onnx", "new/m.onnx"]),
        (["old/m.onnx", "new/m.onnx", "new/n.onnx"], ["old/m.onnx", "new/m.onnx", "n.onnx"]),
        (["a/x/m.onnx", "b/x/m.onnx"], ["a/x/m.onnx", "b/x/m.onnx"]),
        (["a/x/m.onnx", "b/x/m.onnx", "b/y/m.onnx"], ["a/x/m.onnx", "b/x/m.onnx", "y/m.onnx"]),
        (["m.onnx", "old/m.onnx"], ["m.onnx", "old/m.onnx"]),
        (["m.onnx", "/m.onnx"], ["m.onnx", "/m.onnx"]),
        (["m.onnx", "../m.onnx"], ["m.onnx", "../m.onnx"]),
        (["m.onnx", "./m.onnx"], ["m.onnx", "m.onnx (2)"]),
        (["x/m.onnx", "x/m.onnx", "y/m.onnx"], ["x/m.onnx", "x/m.onnx (2)", "y/m.onnx"]),
        (["m", "m", "m"], ["m", "m (2)", "m (3)"]),
        (["m", "m", "m (2)"], ["m", "m (2)", "m (2) (2)"]),
        (["a/\x1b[31m\n.onnx", "b/\\x1b[31m\\n.onnx"], ["a/\\x1b[31m\\n.onnx", "b/\\x1b[31m\\n.onnx"]),
        ([""], ["."]),
        ([], []),
    ],
)
def test_names_have_as_many_parents_as_tell_them_apart(paths: list[str], names: list[str]) -> None:
    assert names_of(paths) == tuple(names)
    assert len(set(names)) == len(paths)
