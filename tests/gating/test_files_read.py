"""Files that a gate reads and paths that it writes to: nothing waits, nothing runs full, and a refusal is one line."""

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from n2n_edge.cli.app import app
from n2n_edge.errors import InputError
from n2n_edge.gating.budget_file import read_budget_file
from n2n_edge.gating.globs import files_below, glob_matches, glob_parts
from n2n_edge.reading import read_json, read_text, read_toml
from n2n_edge.writing import markdown_code, markdown_text, write_text
from tests.gating.models import save_conv

LONG = "x" * 300


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    (tmp_path / ".git").mkdir()
    save_conv(tmp_path / "m.onnx")
    return tmp_path


def gate(*words: str) -> Result:
    return CliRunner().invoke(app, ["gate", "m.onnx", *words])


def refusal(result: Result) -> str:
    assert isinstance(result.exception, InputError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


DEEP = {
    "arrays": "[gate]\nmax-mb = " + "[" * 3000,
    "closed arrays": "[gate]\nmax-mb = " + "[" * 20_000 + "]" * 20_000,
    "inline tables": "[gate]\nx = " + "{a = " * 3000,
    "digits": "[gate]\nmax-mb = " + "9" * 5000,
    "dotted key": "[gate]\n" + ".".join("a" * 20_000) + " = 1",
    "dotted header": "[gate." + ".".join("a" * 20_000) + "]",
    "quoted parts": "[gate]\n" + " . ".join(['"a"'] * 20_000) + " = 1",
    "dots between strings": '[gate]\nx = {a = "b", ' + ".".join(["'a'"] * 20_000) + " = 1}",
    "no end": '[gate]\nx = """' + "'" * 1000,
    "zero byte": "[gate]\nbaseline = 'a\\u0000b'\n".replace("'", '"'),
    "long glob": f'[gate.models."{"a/" * 5000}x.onnx"]\nmax-mb = 1',
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_a_budget_file_that_is_hard_to_read_is_refused(folder: Path, text: str) -> None:
    (folder / "n2n-edge.toml").write_text(text)

    assert refusal(gate()).startswith(str(folder / "n2n-edge.toml"))


def test_dots_that_are_no_keys_are_no_concern(folder: Path) -> None:
    (folder / "n2n-edge.toml").write_text(
        f'[gate]  # {"." * 500}\nmax-mb = 1.0\nallowed-ops = ["Conv,{",".join(["com.microsoft.x:Gelu"] * 200)}"]\n'
    )
    assert gate().exit_code == 0


def special(folder: Path, kind: str) -> str:
    path = folder / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to("loop")
    elif kind == "folder":
        path.mkdir()
    elif kind == "below a file":
        return str(folder / "m.onnx" / "x")
    elif kind == "large":
        with path.open("wb") as stream:
            stream.truncate(3 * 10**9)
    else:
        return kind
    return str(path)


OPTIONS = ("--config", "--allowed-ops", "--baseline", "--device", "--data", "--junit", "--markdown")
SPECIAL = ("fifo", "loop", "folder", "below a file", "large", "/dev/zero", "/dev/stdin", "/nonexistent/x", LONG)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("read", [read_text, read_toml, lambda path: read_json(path, "a document", 1000)])
def test_only_files_of_a_sane_size_are_read(folder: Path, kind, read) -> None:
    path = Path(special(folder, kind))
    with pytest.raises(InputError) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: can't be read")


@pytest.mark.parametrize("kind", [kind for kind in SPECIAL if kind != "large"])
@pytest.mark.parametrize(
    "option", ["--config", "--allowed-ops", "--baseline", "--device", "--data", "--junit", "--markdown"]
)
def test_options_that_name_no_file_are_refused(folder: Path, kind: str, option: str) -> None:
    name = special(folder, kind)
    if option in ("--junit", "--markdown") and kind in ("fifo", "/dev/zero", "/dev/stdin", "loop"):
        pytest.skip("devices and pipes may be written to; a link is replaced by what it leads to")
    value = f"@{name}" if option == "--allowed-ops" else f"{name}.toml" if option == "--device" else name
    extra = [] if option == "--config" else ["--no-config"]
    if option == "--data":
        extra += ["--min-accuracy", "0.5", "--static"]
    if option == "--device":
        extra += ["--max-latency-ms", "1"]
    result = gate("--max-mb", "1", "--static", option, value, *extra)
    if option == "--data":
        assert result.exit_code == 0  # --static leaves it out, whatever it is
    else:
        refusal(result)


def test_paths_that_the_system_refuses_are_wrong_input_not_surprises(folder: Path) -> None:
    (folder / "loop.onnx").symlink_to("loop.onnx")
    for model in ("loop.onnx", LONG, "m.onnx/x", "/root/../proc/1/root/x" if os.getuid() else LONG):
        assert CliRunner().invoke(app, ["gate", model, "--no-config", "--max-mb", "1"]).exit_code != 0


GLOBS = {
    "stars": "**/" * 24 + "x.onnx",
    "stars between names": "**/d/" * 20 + "x.onnx",
    "stars in a name": "*a" * 30 + "x.onnx",
    "all of them": "**/*/" * 12 + "*a" * 20 + "x.onnx",
}


@pytest.mark.parametrize("glob", GLOBS.values(), ids=GLOBS)
def test_globs_take_no_exponential_time(folder: Path, glob: str) -> None:
    deep = folder.joinpath(*["d"] * 40)
    deep.mkdir(parents=True)
    (deep / f"{'a' * 60}.onnx").write_bytes(b"")
    (folder / "n2n-edge.toml").write_text(f"[gate]\nmax-mb = 1\n[gate.models.'{glob}']\nmax-params = 1\n")
    budgets = read_budget_file(folder / "n2n-edge.toml")

    assert not budgets.matches(glob, deep / f"{'a' * 60}.onnx")
    with pytest.raises(InputError, match="names no file"):
        budgets.found_models()


@pytest.mark.parametrize("glob", ["**/**/*.onnx", "a/**/b/**/x.onnx", "**/b/*", "a/*/x.onnx", "*/**/x.onnx", "x.onnx"])
def test_globs_find_what_they_match_and_what_pathlib_finds(folder: Path, glob: str) -> None:
    for name in ("x.onnx", "a/x.onnx", "a/b/x.onnx", "a/c/b/d/x.onnx", "b/y.onnx", "a/b/b/x.onnx"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    (folder / "circle").symlink_to(".")
    found = set(files_below(folder, glob_parts(glob)))

    assert found == {path for path in folder.glob(glob) if path.is_file()}
    every = found | {path for path in folder.rglob("*") if path.is_file()}
    matched = {path for path in every if glob_matches(glob_parts(glob), path.relative_to(folder).parts)}
    assert matched == found


def test_a_name_that_is_not_utf_8_is_written_one_way_everywhere(folder: Path) -> None:
    name = os.fsdecode(b"a\xff\x1b.onnx")
    try:
        save_conv(folder / name)
    except OSError:
        pytest.skip("this file system takes no such names")
    written = "a\\udcff\\x1b.onnx"
    result = CliRunner().invoke(
        app,
        [
            *("gate", name, "--no-config", "--max-mb", "0.00001", "--json", "--github"),
            *("--junit", "j.xml", "--markdown", "m.md", "--gitlab", "g.json"),
        ],
    )
    assert result.exit_code == 1, result.output
    assert ElementTree.parse(folder / "j.xml").getroot()[0].get("name") == written
    assert f"### `{written}`" in (folder / "m.md").read_text("utf-8")
    assert json.loads((folder / "g.json").read_text("utf-8"))[0]["location"]["path"] == "a\\udcff\x1b.onnx"
    assert json.loads(result.stdout)["model"] == "a\\udcff\x1b.onnx"
    assert f"::error file={written}," in result.stderr


def test_init_writes_a_glob_for_any_name(folder: Path) -> None:
    for number, name in enumerate((b"a\xff.onnx", b"b?[x]*.onnx", b"c\x7f\x1b.onnx", "d\u202e😀.onnx".encode())):
        model = save_conv(folder / os.fsdecode(name))
        config = f"i{number}.toml"
        done = CliRunner().invoke(app, ["gate", "--init", model.name, "--config", config])
        assert done.exit_code == 0, done.output
        assert read_budget_file(folder / config).found_models() == (folder / model.name,)
        assert CliRunner().invoke(app, ["gate", model.name, "--config", config]).exit_code == 0


def test_a_file_of_any_name_can_be_written(folder: Path) -> None:
    for name in ("ü" * 127, "x" * 255, os.fsdecode(b"\xff" * 200)):
        write_text(folder / name, "a lone \udcff")
        assert (folder / name).read_text("utf-8") == "a lone \\udcff"


MARKUP = {
    "![x](http://evil/x.png)": "!\\[x\\](http&#8203;://evil/x.png)",
    "[a](javascript:alert(1))": "\\[a\\](javascript:alert(1))",
    "@everyone and pi@board": "@&#8203;everyone and pi@board",
    "see #12 and www.evil.org": "see #&#8203;12 and www&#8203;.evil.org",
    "<img src=x> &lt;": "&lt;img src=x> &amp;lt;",
    "a | b\n# c": "a \\| b # c",
    "# head": "\\# head",
    "1. item": "1\\. item",
    "- item": "\\- item",
    "*b* _i_ a_b `c` ~~s~~ $x$ \\": "\\*b\\* \\_i\\_ a_b \\`c\\` \\~\\~s\\~\\~ \\$x\\$ \\\\",
    "\x1b[31m\u202e\udcff": "\\\\x1b\\[31m\\\\u202e\\\\udcff",
    "0.5 MB, -3.2% inside": "0.5 MB, -3.2% inside",
}


@pytest.mark.parametrize(("text", "written"), MARKUP.items())
def test_markdown_shows_text_as_it_is_written(text: str, written: str) -> None:
    assert markdown_text(text) == written


def test_code_in_markdown_ends_where_it_should() -> None:
    assert markdown_code("a`b|c\nd\x1b") == "`a'b\\|c d\\x1b`"
