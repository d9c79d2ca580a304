from pathlib import Path
from typing import Any

import pytest

from n2n_edge.errors import InputError
from n2n_edge.measure.bench import WarmWorker, bench
from n2n_edge.measure.board import environment, usable_cores
from n2n_edge.measure.measurement import Measurement, MeasurementError
from n2n_edge.measure.options import BenchOptions
from n2n_edge.metrics.figures import Figure
from tests.measure.small_models import write_conv_model, write_failing_model, write_gemm_model, write_sized_model


def timed(path: Path, **options: Any) -> Measurement:
    return bench(path, BenchOptions(**options), profiled=False).measurement


def test_bench_measures_a_model_on_this_host(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx")

    measurement = timed(path, threads=1, min_time_s=0.05, max_time_s=1.0)

    assert measurement.provenance == "measured"
    found = measurement.quantiles
    assert 0 < found.min_ms <= found.p50_low_ms <= found.p50_ms <= found.p50_high_ms
    assert found.p50_ms <= found.p90_ms <= found.p99_ms <= found.max_ms
    assert measurement.n >= 6
    assert (measurement.threads, measurement.batch, measurement.providers) == (1, 1, ("CPUExecutionProvider",))
    assert measurement.runtime.startswith("onnxruntime ")
    assert path.stat().st_size == measurement.file_size_bytes
    assert measurement.first_run_ms > 0
    assert measurement.session_ms > 0
    assert measurement.latency() == Figure(
        measurement.p50_ms,
        "ms",
        "measured",
        low=found.p50_low_ms,
        high=found.p50_high_ms,
        n=measurement.n,
        runtime=measurement.runtime,
    )


def test_a_tolerance_that_cannot_be_reached_is_said_out_loud(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx", 32, 64)  # long enough for no two runs to take equally long

    measurement = timed(path, threads=1, min_time_s=0.0, max_time_s=0.1, tolerance=1e-9)

    assert not measurement.converged
    assert "not-settled" in [warning.code for warning in measurement.warnings]


def test_memory_growth_holds_the_weights_and_not_what_the_parent_uses(tmp_path: Path) -> None:
    ballast = bytearray(300_000_000)
    ballast[::4096] = b"\1" * len(ballast[::4096])
    path = write_gemm_model(tmp_path / "wide.onnx", 2500)

    with WarmWorker() as worker:
        fresh = worker.measure(path, BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.05))
        used = worker.measure(path, BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.05))

    assert fresh.rss_growth_bytes is not None
    assert 25_000_000 < fresh.rss_growth_bytes < 200_000_000
    assert used.rss_growth_bytes is None


def test_a_free_batch_axis_takes_the_batch(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx")

    measurement = timed(path, threads=1, batch=3, min_time_s=0.0, max_time_s=0.1)

    assert measurement.batch == 3


def test_a_fixed_batch_is_refused_or_warned_of(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "four.onnx", batch=4)

    with WarmWorker() as worker:
        with pytest.raises(InputError, match="fixed batch of 4; 3 was asked for"):
            worker.measure(path, BenchOptions(threads=1, batch=3))
        measurement = worker.measure(path, BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.1))

    assert ("input-shape", True) in [(one.code, "fixed first axis of 4" in one.text) for one in measurement.warnings]


def test_other_free_axes_are_as_costs_assume_and_are_named(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx")
    free = tmp_path / "free.onnx"
    import onnx

    model = onnx.load(path)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[2].dim_param = "height"
    free.write_bytes(model.SerializeToString())

    measurement = timed(free, threads=1, min_time_s=0.0, max_time_s=0.1)

    assert "input 'x': free axis 2 (height) was set to 224" in [str(warning) for warning in measurement.warnings]


def test_more_threads_than_cores_is_warned_of(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx")
    threads = usable_cores() + 1

    measurement = timed(path, threads=threads, min_time_s=0.0, max_time_s=0.1)

    assert f"{threads} threads share {usable_cores()} cores" in [str(warning) for warning in measurement.warnings]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": 0}, "threads 0"),
        ({"batch": 0}, "batch 0"),
        ({"max_time_s": 0.0, "min_time_s": 0.0}, "max_time_s 0"),
        ({"min_time_s": 3.0, "max_time_s": 2.0}, "min_time_s 3"),
        ({"tolerance": float("nan")}, "tolerance nan"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        BenchOptions(**options)  # type: ignore[arg-type]


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.onnx: no such file"):
        bench(tmp_path / "nothing.onnx")


def test_an_unknown_provider_is_refused_with_the_ones_there_are(tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "model.onnx")

    with pytest.raises(InputError, match=r"NoSuchExecutionProvider.*it has .*CPUExecutionProvider"):
        timed(path, providers=("NoSuchExecutionProvider",))


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_corrupt_file_is_refused_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = write_conv_model(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[:200] if content is None else content)

    with pytest.raises(InputError) as caught:
        bench(path)

    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_model_that_fails_when_it_runs_is_a_failed_measurement(tmp_path: Path) -> None:
    path = write_failing_model(tmp_path / "bad.onnx")

    with pytest.raises(MeasurementError, match="the run failed in its first run") as caught:
        bench(path)

    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_the_environment_names_machine_and_runtime() -> None:
    found = environment()

    assert {"cpu", "cores", "os", "python", "onnxruntime"} <= set(found)
    assert found["onnxruntime"] != "unknown"
    assert found == environment()


@pytest.mark.parametrize("default", [None, (2, 6), (5, 5)], ids=["required", "optional", "of no use"])
def test_an_input_gets_the_values_it_is_bound_to(tmp_path: Path, default: tuple[int, ...] | None) -> None:
    path = write_sized_model(tmp_path / "model.onnx", sizes=default)

    measurement = timed(path, bind=("sizes=3,4",), threads=1, min_time_s=0.01, max_time_s=0.05)

    assert measurement.n > 0
    if default == (5, 5):
        with pytest.raises(MeasurementError):
            timed(path, threads=1, min_time_s=0.01, max_time_s=0.05)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("size=3,4", "bind.* size=3,4: the model has no such input; it has x, sizes"),
        ("sizes=3,4,5", "3 numbers for an input that is 2; give 2, or one"),
        ("sizes:=3,4", "keeps its inputs; write sizes="),
    ],
)
def test_a_binding_that_fits_no_input_is_refused(tmp_path: Path, binding: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        timed(write_sized_model(tmp_path / "model.onnx"), bind=(binding,), min_time_s=0.01, max_time_s=0.05)
