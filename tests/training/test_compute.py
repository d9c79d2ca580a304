import numpy as np
import onnx_ir as ir
import pytest
import torch

from n2n_edge.training import compute
from n2n_edge.training.distillation import training_engine
from n2n_edge.training.settings import DistillSettings
from tests.strategies import GraphBuilder, Tensor
from tests.training.small import striped_data


@pytest.mark.parametrize("variable", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ("AVX2", False),
        ("sse41", False),
        ("AVX512_CORE_VNNI", False),
        ("AVX512_CORE_BF16", True),
        ("ALL", True),
        ("", True),
    ],
)
def test_bf16_is_used_only_where_onednn_may_use_it(monkeypatch, variable, allowed, expected):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setenv(variable, allowed)
    assert compute.native_bf16() is expected
    assert compute.default_format("auto", torch.device("cpu")) == ("bf16" if expected else "fp32")
    assert compute.default_format("fp16", torch.device("cpu")) == "fp16"


@pytest.mark.parametrize(("depthwise", "expected"), [(False, "bf16"), (True, "fp32")])
def test_a_processor_trains_depthwise_networks_in_float32(monkeypatch, depthwise, expected):
    monkeypatch.setattr(compute, "native_bf16", lambda: True)
    builder = GraphBuilder(17, np.random.default_rng(0))
    x = Tensor("input", 1, (16, 16))
    for _ in range(3):
        x = builder.conv(x, 8)
        x = builder.conv(x, 8, groups=8 if depthwise else 1)
    model = ir.from_proto(builder.to_proto(1, 16, x, free_batch=True, batch=1))
    data = striped_data()
    for precision, found in (("auto", expected), ("bf16", "bf16")):
        engine = training_engine(DistillSettings(precision=precision, device="cpu"), model, data)
        assert engine.number_format == found
