import pytest
import torch

from n2n_edge.training import compute


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
