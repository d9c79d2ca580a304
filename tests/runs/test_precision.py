"""Students in int8: how a run makes them, and when they don't ship."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

import n2n_edge
from n2n_edge.errors import InputError
from n2n_edge.graph.load import load_model
from n2n_edge.graph.quantized import precision_table
from n2n_edge.metrics.figures import FigureJson
from n2n_edge.metrics.notices import codes_of
from n2n_edge.runs import quantized
from n2n_edge.runs.quantized import decide
from tests.runs.small import images_npz, teacher_file

FASTER: FigureJson = {"value": 0.7, "unit": "ratio", "provenance": "measured", "low": 0.65, "high": 0.75, "n": 8}
SLOWER: FigureJson = {"value": 1.4, "unit": "ratio", "provenance": "measured", "low": 1.3, "high": 1.5, "n": 8}
PERHAPS_SLOWER: FigureJson = {**SLOWER, "value": 1.1, "low": 0.95}

LAYERS = {"conv0": "int8", "conv1": "int8", "conv2": "int8", "fc": "fp32"}


@pytest.fixture(scope="module", autouse=True)
def _timed_for_a_moment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantized, "TIMED", n2n_edge.BenchOptions(min_time_s=0.02, max_time_s=0.1))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, quick_workers: None) -> n2n_edge.Run:
    folder = tmp_path_factory.mktemp("int8")
    return n2n_edge.compress(
        teacher_file(folder / "teacher.onnx"),
        images_npz(folder / "data.npz"),
        precision="int8",
        device=["raspberry-pi-4", "cpu"],
        max_mb=0.02,
        candidates=2,
        effort="quick",
        epochs=1,
        out=folder / "run",
    )


def test_what_ships_is_quantized_but_for_the_output_layer(run: n2n_edge.Run) -> None:
    table = precision_table(load_model(run.student))
    assert table.formats == ("QDQ",)
    assert {layer.name: layer.precision for layer in table.layers} == LAYERS
    assert all(layer.per_channel for layer in table.layers if layer.precision == "int8")
    onnx.checker.check_model(str(run.student))


def test_budgets_hold_the_quantized_file(run: n2n_edge.Run) -> None:
    assert run.met
    assert run.student.stat().st_size <= 20_000
    assert all(trial.trial.architecture.int8 for trial in run.trials)


def test_the_report_tells_precision_by_layer_step_and_device(run: n2n_edge.Run) -> None:
    report = run.report
    told = {layer["name"]: layer.get("precision") for layer in report["layers"] if layer["op_type"]}
    assert told == LAYERS
    precision = report["precision"]
    assert precision["asked"] == precision["ships"] == "int8"
    assert [step["step"] for step in precision["steps"]] == ["float", "calibrated", "distilled"]
    ratios = precision["latency_ratio"]
    assert ratios["cpu"]["provenance"] == "measured"
    assert ratios["raspberry-pi-4"]["provenance"] == "calibrated"
    assert {share["precision"] for share in report["device"]["shares"]} == {"int8", "fp32"}
    assert report["search"]["winner"] is not None
    assert "In int8: conv0" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_the_student_goes_through_costs_and_gate(run: n2n_edge.Run) -> None:
    assert n2n_edge.costs(load_model(run.student)).integer_macs > 0
    (gated,) = n2n_edge.gate(run.student, max_mb=0.02, max_macs=5e6)
    assert gated.outcome == "pass"


class _StopError(Exception):
    pass


class _Stopping(n2n_edge.RunCallback):
    """Ends a run at the first epoch of its quantization-aware distillation."""

    quantized = False

    def on_message(self, text: str) -> None:
        self.quantized = self.quantized or text.startswith("quantization-aware")

    def on_epoch(self, report: object) -> None:
        if self.quantized:
            raise _StopError


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_is_taught_ends_with_the_same_student(run: n2n_edge.Run, tmp_path: Path) -> None:
    how = {**vars(run.settings), "out": tmp_path / "run"}
    with pytest.raises(_StopError):
        n2n_edge.compress(**how, callbacks=[_Stopping()])
    again = n2n_edge.Run.open(tmp_path / "run").resume()
    assert weights_of(again) == weights_of(run)
    assert not (tmp_path / "run" / "quantized.checkpoint").exists()


def weights_of(run: n2n_edge.Run) -> dict[str, bytes]:
    model = load_model(run.student)
    return {name: value.const_value.tobytes() for name, value in model.graph.initializers.items() if value.const_value}


@pytest.mark.slow
def test_its_candidates_ship_in_int8_too(run: n2n_edge.Run) -> None:
    shipped = run.ship(1, epochs=1)
    assert precision_table(load_model(shipped.student)).formats == ("QDQ",)


def test_training_it_elsewhere_is_refused(run: n2n_edge.Run) -> None:
    with pytest.raises(InputError, match="holds integers"):
        run.ship(run.student)


def test_it_ships_where_it_is_faster_and_loses_little() -> None:
    decision = decide("auto", {"cpu": FASTER}, 0.4, 1.0, [])
    assert decision.ships
    assert not decision.warnings


@pytest.mark.parametrize(("ratio", "drop", "code"), [(SLOWER, 0.0, "int8-slower"), (FASTER, 1.5, "int8-loses")])
def test_what_is_slower_or_loses_more_is_rejected_with_its_figures(ratio: FigureJson, drop: float, code: str) -> None:
    decision = decide("auto", {"cpu": ratio}, drop, 1.0, [], "thin layers")
    assert not decision.ships
    assert codes_of(decision.rejected) == (code,)
    assert codes_of(decision.notices) == ("int8-rejected",)
    assert ("1.40 times (1.30 to 1.50)" in str(decision.notices[0])) == (ratio is SLOWER)
    assert ("1.50 points" in str(decision.notices[0])) == (drop > 1)


@pytest.mark.parametrize(("asked", "missed"), [("int8", []), ("auto", ["size_mb"])])
def test_forced_or_needed_for_a_budget_it_ships_with_a_warning(asked: str, missed: list[str]) -> None:
    decision = decide(asked, {"cpu": SLOWER}, 0.0, 1.0, missed)
    assert decision.ships
    assert codes_of(decision.warnings) == ("int8-slower",)
    assert ("file size" in str(decision.warnings[0])) == bool(missed)


def test_a_ratio_that_may_be_one_rejects_nothing() -> None:
    assert decide("auto", {"cpu": PERHAPS_SLOWER}, 0.0, 1.0, []).ships


def test_a_student_in_float16_takes_and_gives_float32(tmp_path: Path) -> None:
    run = n2n_edge.compress(
        teacher_file(tmp_path / "teacher.onnx"), images_npz(tmp_path / "data.npz"), precision="fp16", max_mb=0.012,
        device="raspberry-pi-4", candidates=1, effort="quick", epochs=1, out=tmp_path / "run",
    )  # fmt: skip
    model = load_model(run.student)
    assert {value.dtype for value in (*model.graph.inputs, *model.graph.outputs)} == {ir.DataType.FLOAT}
    assert {layer.precision for layer in precision_table(model).layers} == {"fp16"}
    assert run.met
    assert run.report["precision"]["ships"] == "fp16"
    kept = [layer for layer in run.report["layers"] if layer["op_type"] and not layer["removed"]]
    assert {layer.get("precision") for layer in kept} == {"fp16"}


def test_another_precision_is_refused() -> None:
    with pytest.raises(InputError, match="precision int4"):
        n2n_edge.CompressSettings(precision="int4")
