"""Ranges of activations put into a network that has its pairs already: several ways to find them need one quantizer."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from n2n_edge.quantize.plan import QuantizationPlan

__all__ = ["Range", "with_ranges"]

Range = tuple[float, float]
"""The least and the largest float of a value."""


def with_ranges(paired: ir.Model, ranges: Mapping[str, Range], plan: QuantizationPlan) -> ir.Model:
    """Return a copy of a network in training form, fresh from `with_qdq`, with other ranges, of the same values.

    >>> tighter = with_ranges(with_qdq(model, ranges, plan), narrower, plan)
    """
    from onnxruntime.quantization.quant_utils import QuantType, compute_scale_zp, get_qmin_qmax_for_qType

    kind = QuantType.QInt8 if plan.activations == "int8" else QuantType.QUInt8
    least, most = get_qmin_qmax_for_qType(kind.tensor_type, symmetric=plan.symmetric)
    result = paired.clone()
    constants = result.graph.initializers
    for name, (low, high) in ranges.items():
        scale, zero = constants.get(f"{name}_scale"), constants.get(f"{name}_zero_point")
        if scale is None or zero is None:
            continue
        settings = compute_scale_zp(np.float32(low), np.float32(high), least, most, plan.symmetric)
        for value, array in zip((zero, scale), settings, strict=True):
            assert value.const_value is not None
            array = np.asarray(array, value.const_value.numpy().dtype).reshape(value.const_value.numpy().shape)
            value.const_value = ir.Tensor(array, name=value.name)
    return result
