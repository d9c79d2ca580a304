"""What a person sees of a run's progress before there are candidates."""

import io

import pytest
from rich.console import Console

from n2n_edge.cli.live import _Lines, _Panel
from n2n_edge.runs.settings import CompressSettings
from n2n_edge.training.reports import StepReport

SETTINGS = CompressSettings(max_params=60000)


def test_lines_show_the_sensitivity_profile_from_its_first_part_on(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _Lines(SETTINGS)
    for done in range(4):
        lines.on_probe(done, 40)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "sensitivity profile 0/40"
    assert said[1].startswith("sensitivity profile 1/40; ")
    assert said[1].endswith(" left")
    assert len(said) == 2  # the others within ten seconds of these


def test_the_panel_shows_the_sensitivity_profile() -> None:
    panel = _Panel(SETTINGS, Console(file=io.StringIO()))
    panel.on_probe(0, 40)
    console = Console(file=io.StringIO(), width=120)
    console.print(panel.render())
    assert "0 of 40" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("waiting", "told"), [(0.42, "118 images/s, 42% of the time waiting for images; "), (0.02, "118 images/s; ")]
)
def test_training_says_its_speed_and_whether_it_waits_for_images(
    waiting: float, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = StepReport(1, 2, 3, 10, 118.2, 65.0, waiting)
    lines, panel = _Lines(SETTINGS), _Panel(SETTINGS, Console(file=io.StringIO()))
    lines._last = -1000.0
    lines.on_step(report)
    assert f"training epoch 1/2, step 3/10, {told}1 min 05 s left" in capsys.readouterr().err
    panel.on_step(report)
    console = Console(file=io.StringIO(), width=120)
    console.print(panel.render())
    assert f"1 of 2; {told}1 min 05 s left" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_reading_of_a_large_folder_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 600, 6))
    monkeypatch.setattr("n2n_edge.cli.live.time.monotonic", lambda: float(next(now)))
    lines, panel = _Lines(SETTINGS), _Panel(SETTINGS, Console(file=io.StringIO()))
    for done in (20_000, 50_000, 100_000):
        lines.on_scan(done, 100_000)
        panel.on_scan(done, 100_000)
        console = Console(file=io.StringIO(), width=120)
        console.print(panel.render())
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert (f"{done:,} of 100,000" in shown) == (done < 100_000)  # the panel goes when it is read
    said, last = capsys.readouterr().err.splitlines()
    assert said.startswith("reading images 50,000/100,000; ")
    assert said.endswith(" left")
    assert last == "reading images 100,000/100,000"


def test_settings_in_messages_are_named_as_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = "trained at 224 x 224 (give ‹input_shape› for another)"
    _Lines(SETTINGS).on_message(text)
    shown = io.StringIO()
    _Panel(SETTINGS, Console(file=shown, width=120)).on_message(text)
    for said in (capsys.readouterr().err, shown.getvalue()):
        assert "(give --input-shape for another)" in said
