import pytest

from n2n_edge.errors import InputError
from n2n_edge.measure.options import BenchOptions, parse_providers


def test_short_and_full_names_of_providers() -> None:
    providers, options = parse_providers("tensorrt, CUDA,cpu")

    assert providers == ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    assert options == {}
    assert parse_providers("RknpuExecutionProvider")[0] == ("RknpuExecutionProvider",)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tensorrt", {"trt_fp16_enable": "True", "device_id": "0"}),
        ("openvino", {"precision": "FP16", "device_id": "0"}),
        ("qnn", {"enable_htp_fp16_precision": "1", "device_id": "0"}),
    ],
)
def test_half_precision_is_one_word_for_all(name: str, options: dict[str, str]) -> None:
    providers, found = parse_providers(name, ("fp16=1", "device_id=0"))

    assert found == {providers[0]: options}


@pytest.mark.parametrize(
    ("names", "settings", "says"),
    [
        ("", (), "name at least one"),
        ("gpu", (), "no such provider; short names are cpu, xnnpack"),
        ("cpu,cpu", (), "named twice"),
        ("cuda", ("device",), "write it as KEY=VALUE"),
        ("cuda", ("=1",), "write it as KEY=VALUE"),
        ("cpu", ("fp16=1",), "no option for half precision"),
    ],
)
def test_bad_providers_and_settings(names: str, settings: tuple[str, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_providers(names, settings)


def test_engines_and_other_providers_are_known_from_the_options() -> None:
    assert BenchOptions().only_cpu
    assert not BenchOptions(providers=("XnnpackExecutionProvider", "CPUExecutionProvider")).only_cpu
    assert BenchOptions(providers=("TensorrtExecutionProvider",)).builds_engines
