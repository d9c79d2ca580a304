"""What every target does alike: this host, this host within limits, and a board over ssh."""

from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest

from n2n_edge.errors import InputError, MemoryLimitError
from n2n_edge.measure.bench import WarmWorker, bench, run_throughput
from n2n_edge.measure.comparison import compare
from n2n_edge.measure.measurement import Measurement, MeasurementError
from n2n_edge.measure.messages import LimitPrepared
from n2n_edge.measure.options import BenchOptions
from n2n_edge.measure.readiness import readiness
from n2n_edge.measure.ssh import SshTarget
from n2n_edge.measure.target import HostTarget, Target
from tests.measure.small_models import write_conv_model, write_failing_model, write_gemm_model

pytestmark = pytest.mark.usefixtures("quick_workers")

NO_MEANS = LimitPrepared(cgroup=None, prefix=[])
QUICK = BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.1)


@pytest.fixture(params=["host", "host-limited", "ssh"])
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    if request.param == "host":
        found: Target = HostTarget()
    elif request.param == "host-limited":
        found = HostTarget(limit_bytes=2_000_000_000, limited_to="some-board", cores=1)
    else:
        found = SshTarget(request.getfixturevalue("server").url())
    with found:
        yield found


def test_a_model_is_timed_and_profiled(target: Target, tmp_path: Path) -> None:
    path = write_conv_model(tmp_path / "a model, 'quoted'.onnx")

    found = bench(path, QUICK, target=target)

    measured = found.measurement
    assert measured.n >= 1
    assert (measured.target, measured.provenance) == (target.name, target.provenance)
    assert path.stat().st_size == measured.file_size_bytes
    assert measured.rss_growth_bytes is not None
    assert found.profile is not None
    assert {"w1", "w2"} <= set(found.profile.by_layer())
    assert not found.before.throttled


def test_a_limit_is_named_in_the_provenance(target: Target) -> None:
    assert target.provenance == ("host-limited" if target.name.startswith("host within") else "measured")


def test_the_machine_is_described(target: Target) -> None:
    found = target.describe()

    assert {"cpu", "cores", "logical_cpus", "memory_mb", "machine", "os", "python", "onnxruntime"} <= set(found)
    assert target.cores >= 1


def test_models_take_turns(target: Target, tmp_path: Path) -> None:
    small, large = write_conv_model(tmp_path / "s.onnx", 8, 24), write_conv_model(tmp_path / "l.onnx", 32, 24)

    found = compare([small, large], BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.3), target)

    comparison = found.comparisons[1]
    assert found.comparisons[0] is None
    assert comparison is not None
    assert comparison.low <= comparison.ratio <= comparison.high
    assert comparison.ratio > 1.5


def test_a_model_that_fails_does_not_keep_the_others_from_taking_turns(target: Target, tmp_path: Path) -> None:
    good, bad = write_conv_model(tmp_path / "good.onnx"), write_failing_model(tmp_path / "bad.onnx")

    found = compare([good, bad, good], QUICK, target)

    assert isinstance(found.measurements[1], MeasurementError)
    assert found.comparisons[1] is None
    assert found.comparisons[2] is not None


def test_streams_have_a_throughput(target: Target, tmp_path: Path) -> None:
    found = run_throughput(write_conv_model(tmp_path / "m.onnx"), QUICK, target, 2)

    assert found.low <= found.per_second <= found.high
    assert found.n > 2


def test_streams_of_a_model_with_several_outputs_do_not_meet(target: Target, tmp_path: Path) -> None:
    model = onnx.load(write_conv_model(tmp_path / "m.onnx"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("r1", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "two.onnx")

    assert run_throughput(tmp_path / "two.onnx", QUICK, target, 8).n > 8


def test_no_such_file(target: Target, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.onnx: no such file"):
        bench(tmp_path / "nothing.onnx", QUICK, target=target)


def test_a_corrupt_model_is_refused(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "corrupt.onnx"
    path.write_bytes(b"not a model")

    with pytest.raises(InputError, match="onnxruntime refuses it"):
        bench(path, QUICK, target=target)


def test_a_provider_that_does_nothing_is_an_error(target: Target, tmp_path: Path) -> None:
    import onnxruntime

    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no provider that takes no operators")
    options = BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.1, providers=("AzureExecutionProvider",))

    with pytest.raises(MeasurementError, match=r"Azure.* was asked for, but every operator ran on CPU"):
        bench(write_conv_model(tmp_path / "m.onnx"), options, target=target, profiled=False)


def test_many_models_in_one_worker(target: Target, tmp_path: Path) -> None:
    models = [write_conv_model(tmp_path / f"{width}.onnx", width) for width in (4, 8)]

    with WarmWorker(target) as worker:
        assert [worker.measure(model, QUICK).file_size_bytes for model in models] == [
            model.stat().st_size for model in models
        ]
        assert worker.measure(models[0].read_bytes(), QUICK).n >= 1


def test_it_is_ready(target: Target) -> None:
    found = readiness(target)

    assert found.ready
    assert found.missing == ()
    assert "CPU" in found.facts["providers"]


@pytest.fixture(params=["host", "ssh"])
def limited(request: pytest.FixtureRequest) -> Callable[[int], Target]:
    def make(limit_bytes: int) -> Target:
        if request.param == "host":
            return HostTarget(limit_bytes=limit_bytes)
        return SshTarget(request.getfixturevalue("server").url(), limit_bytes=limit_bytes)

    return make


def test_a_model_over_a_limit_that_the_system_enforces_is_stopped(
    limited: Callable[[int], Target], tmp_path: Path
) -> None:
    path = write_gemm_model(tmp_path / "wide.onnx", 4000)  # 64 MB of weights

    with limited(350_000_000) as target:  # each worker has it for itself
        found = compare([path, path], BenchOptions(threads=1, min_time_s=0.0, max_time_s=0.1), target)
        assert all(isinstance(measured, Measurement) for measured in found.measurements)
    with limited(100_000_000) as target:
        assert target.limit is not None
        if not target.limit.enforced:
            pytest.skip("no control group with a memory limit can be made here")
        with pytest.raises(MemoryLimitError, match="over its memory limit of 100 MB") as caught:
            bench(path, QUICK, target=target)
        small = write_conv_model(tmp_path / "small.onnx")
        assert bench(small, QUICK, target=target).measurement.n >= 1

    assert caught.value.exit_code == 4


def test_a_model_over_a_limit_that_is_only_watched_is_stopped(
    limited: Callable[[int], Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_gemm_model(tmp_path / "wide.onnx", 4000)
    monkeypatch.setattr(Target, "limit_there", lambda target: NO_MEANS)

    with limited(100_000_000) as target:
        assert target.limit is not None
        assert not target.limit.enforced
        with pytest.raises(MemoryLimitError, match=r"reached 1\d\d\.\d MB .*over its memory limit of 100 MB"):
            bench(path, QUICK, target=target)


def test_a_limit_that_is_wide_enough_changes_nothing(limited: Callable[[int], Target], tmp_path: Path) -> None:
    with limited(2_000_000_000) as target:
        assert bench(write_conv_model(tmp_path / "small.onnx"), QUICK, target=target).measurement.n >= 1


def test_a_model_with_external_data_arrives_whole(target: Target, tmp_path: Path) -> None:
    path = tmp_path / "outside.onnx"
    model = onnx.load(write_gemm_model(tmp_path / "inside.onnx", 200))
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)

    measured = bench(path, QUICK, target=target, profiled=False).measurement

    assert measured.file_size_bytes == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert measured.file_size_bytes > 160_000


def test_a_model_in_the_runtimes_own_format(target: Target, tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "small.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(write_conv_model(tmp_path / "small.onnx"), options, ["CPUExecutionProvider"])

    assert bench(tmp_path / "small.ort", QUICK, target=target).measurement.n >= 1
