"""Boards that lie, flood, fall silent or never end: one line and exit code 3, in bounded time and memory."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from n2n_edge.cli.bench import bench as bench_command
from n2n_edge.cli.device import device_app
from n2n_edge.errors import N2NError
from n2n_edge.measure import channel, process
from n2n_edge.measure.bench import WarmWorker, bench
from n2n_edge.measure.launch import Launch
from n2n_edge.measure.measurement import MeasurementError
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.process import WorkerProcess, WorkerReady
from n2n_edge.measure.ssh import SshTarget
from n2n_edge.measure.suite import run_suite
from n2n_edge.measure.target import HostTarget
from tests.measure.fake_board import install
from tests.measure.small_models import write_conv_model

QUICK = BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.1, timeout_s=20.0)
URL = "ssh://board"
ESCAPES = r"\x1b]0;pwn\x07\x1b[31m\u202e\n::error title=x::y"

app = typer.Typer()
app.command("bench")(bench_command)
app.add_typer(device_app, name="device")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_conv_model(tmp_path / "model.onnx")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(model: Path, options: BenchOptions = QUICK) -> str:
    """Return the one line by which a measurement on the board is refused."""
    with SshTarget(URL) as target, pytest.raises(N2NError) as caught:
        bench(model, options, target=target)
    assert caught.value.exit_code == 3
    text = str(caught.value)
    assert "\n" not in text
    assert "\x1b" not in text
    return text


def test_a_board_that_answers_as_it_should_is_believed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)

    with SshTarget(URL) as target:
        found = bench(model, QUICK, target=target)
        (entry, _) = run_suite([model, model], QUICK, target, streams=1).entries

    assert found.measurement.p50_ms == 1.0
    assert found.measurement.energy is not None
    assert found.measurement.energy.millijoules == pytest.approx(30.0)
    assert found.before.clock_mhz == 1500.0
    assert entry.throughput is not None
    assert entry.throughput.per_second == 5.0


@pytest.mark.parametrize(
    ("during", "says"),
    [
        ("if command == 'measure': del answer['samples_ms']", "answer (measure) lacks 'samples_ms'"),
        ("if command == 'measure': answer['samples_ms'][3] = nan", "nan as 'samples_ms[3]'"),
        ("if command == 'measure': answer['samples_ms'] = [1e308] * 50", "inf s of work, more than"),
        ("if command == 'measure': answer['samples_ms'] = [1e5] * 50", "tells of 5000 s of work, more than"),
        ("if command == 'profile': answer['run_us'] = 1e12", "(profile) tells of"),
        ("if command == 'check': answer['cores'] = 10**30", "as 'cores'"),
        ("if command == 'state': answer['clocks'] = 'x'", "'x' as 'clocks'"),
        ("if command == 'put': answer = {}", "lacks 'path'"),
        ("say(event='error'); continue", "answer (error) lacks 'kind'"),
        ("say(event='error', kind='memory', message='9' * 5000); continue", "the run failed"),
        ("say(event='error', kind=['x'], message={}); continue", "as 'kind'"),
        ("send(b'{\"event\":' + b'[' * 100_000 + b'\\n')", "a message that can't be read (RecursionError)"),
        ("send(b'{\"event\":\"result\",\"a\":' + b'9' * 5000 + b'}\\n')", "can't be read (ValueError)"),
        ('send(b\'{"event":"result"\\n\')', "can't be read (JSONDecodeError)"),
        ('send(b\'{"event":"\\xff\\xfe"}\\n\')', "can't be read (UnicodeDecodeError)"),
        ("say(event='phase', phase=nan)", "answer (phase) has nan as 'phase'"),
        ("sys.exit(7)", "exit code 7"),
    ],
)
def test_an_answer_that_can_not_be_ends_the_measurement(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: str, says: str
) -> None:
    if "profile" not in during:
        install(tmp_path, monkeypatch, during=during)
        assert says in refusal(model)
        return
    install(tmp_path, monkeypatch, during=during)  # a profile that fails leaves a warning
    with SshTarget(URL) as target:
        found = bench(model, QUICK, target=target)
    assert any(says in one.text for one in found.measurement.warnings if one.code == "not-profiled")
    assert found.profile is None


@pytest.mark.parametrize(
    ("flood", "says"),
    [
        ("while True: send(b'x' * 10**6)", "a line of more than"),
        ('while True: send(b\'{"event": "z", "a": 1}\\n\' * 10**4)', "lines"),
        ("while True: send(b'\\n' * 10**5)", "lines"),
        ('while True: send(b\'{"event": "phase", "phase": "in timed runs"}\\n\' * 10**4)', "lines"),
        ("while True: send((b'x' * 10**5 + b'\\n') * 10)", "sent more than"),
        ("while True: os.write(2, b'e' * 10**6)", "sent more than"),
    ],
)
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_flood_is_cut_off(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, flood: str, says: str
) -> None:
    monkeypatch.setattr(channel, "LINE_BYTES", 2_000_000)
    monkeypatch.setattr(channel, "TRAFFIC_BYTES", 4_000_000)
    install(tmp_path, monkeypatch, **{when: flood})

    assert says in refusal(model)


@pytest.mark.parametrize(
    "during",
    [
        "while command == 'measure': say(event='phase', phase='in timed runs'); time.sleep(0.05)",
        "while command == 'measure': say(event='phase', phase='x'); time.sleep(0.05)",
        "while command == 'measure': say(event='unheard'); time.sleep(0.05)",
        "while command == 'measure': send(b' '); time.sleep(0.05)",
        "while command == 'measure': os.write(2, b'.'); time.sleep(0.05)",
        "if command == 'measure': time.sleep(600)",
    ],
)
def test_no_sign_of_life_moves_the_deadline(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    install(tmp_path, monkeypatch, during=during)

    assert "no answer within 1" in refusal(model, replace(QUICK, timeout_s=1.0))


def test_a_board_that_never_reads_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "START_TIMEOUT_S", 20.0)
    command = ["python3", "-c", "import json, time; print(json.dumps(READY), flush=True); time.sleep(600)"]
    ready = {"event": "ready", "protocol": 2, "runtime": "x", "baseline_rss_bytes": None}
    command[2] = command[2].replace("READY", repr(ready))

    with WorkerProcess(Launch(command), WorkerReady) as worker:
        assert worker.ready.runtime == "x"
        with pytest.raises(MeasurementError, match="no answer within 0\\.5 s, while the request was sent"):
            worker.request(process.Message, "m", 0.5, data="x" * 10_000_000)
        assert not worker.alive


def test_a_child_that_holds_the_pipes_does_not_outlast_its_parent(tmp_path: Path) -> None:
    command = ["sh", "-c", "sleep 600 & exit 5"]

    with pytest.raises(MeasurementError, match=r"ended while starting \(exit code 5\)"):
        WorkerProcess(Launch(command), WorkerReady)


def test_only_the_end_of_stderr_is_kept_and_shown(tmp_path: Path) -> None:
    command = ["sh", "-c", "yes noise | head -c 3000000 >&2; printf 'the last\\033[31m words\\n' >&2; exit 3"]

    with pytest.raises(MeasurementError, match=r"\(exit code 3\): the last\\x1b\[31m words$"):
        WorkerProcess(Launch(command), WorkerReady)


@pytest.mark.parametrize(
    "before", [f"os.write(2, '{ESCAPES}Permission denied'.encode()); sys.exit(255)", "sys.exit(255)"]
)
def test_what_ssh_says_is_escaped(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str) -> None:
    install(tmp_path, monkeypatch, before=before)

    refusal(model)


@pytest.mark.parametrize(
    "during",
    [
        f"if command == 'measure': answer['warnings'] = ['{ESCAPES}']",
        f"if command == 'measure': answer['providers'] = ['{ESCAPES}']",
        f"if command == 'state': answer['clocks'][0]['governor'] = '{ESCAPES}'",
        f"if command == 'state': answer['tools'] = {{'nvpmodel': 'NV Power Mode: {ESCAPES}'}}",
        f"if command == 'check': answer['cpu'] = answer['os'] = answer['onnxruntime'] = '{ESCAPES}'",
        f"if command == 'check': answer['numpy'], answer['numpy_error'] = None, '{ESCAPES}'",
        f"if command == 'profile': answer['kernels'][0]['name'] = answer['kernels'][0]['op_type'] = '{ESCAPES}'",
        f"READY['runtime'] = '{ESCAPES}'",
        f"say(event='error', kind='refused', message='{ESCAPES}'); continue",
    ],
)
@pytest.mark.parametrize(
    "command", [["bench", "MODEL", "--per-op"], ["bench", "MODEL", "--json"], ["device", "check", URL]]
)
def test_no_text_of_a_board_reaches_the_terminal_as_it_is(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, during: str, command: list[str]
) -> None:
    before = during if during.startswith("READY") else ""
    install(tmp_path, monkeypatch, before=before, during="" if before else during)
    arguments = [model if word == "MODEL" else word for word in command]
    if "bench" in command:
        arguments += ["--target", URL, "--min-time", "0", "--max-time", "0.1", "--markdown", tmp_path / "b.md"]

    result = run(*arguments)

    written = [path.read_text() for path in tmp_path.glob("b.md")]
    assert isinstance(result.exception, (SystemExit, N2NError, type(None)))
    for text in (result.output, str(result.exception), *written):
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
        assert not any(line.lstrip("│ ").startswith("::error") for line in text.splitlines())
    if "--json" in command and result.exit_code == 0:
        assert json.loads(result.stdout)["models"]


def test_a_worker_here_is_held_to_the_same(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = {"event": "ready", "protocol": 2, "runtime": "x", "baseline_rss_bytes": -1}
    code = f"import json, time\nprint(json.dumps({ready!r}), flush=True)\ntime.sleep(600)\n"
    monkeypatch.setattr(HostTarget, "launch", lambda target, arguments: Launch([sys.executable, "-c", code]))

    with (
        WarmWorker() as worker,
        pytest.raises(MeasurementError, match=r"the worker's answer \(ready\) has -1 as 'baseline_rss_bytes'"),
    ):
        worker.measure(model, QUICK)
