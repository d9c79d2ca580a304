"""ONNX Runtime's QDQ quantizer with the scales of weights worked out for all channels at once.

A candidate of a search takes a part of the time.
"""

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.base_quantizer import QuantizationParams
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer, QDQQuantTensorType, QDQScaleZpInitializers

__all__ = ["FastQuantizer"]


class FastQuantizer(QDQQuantizer):  # type: ignore[misc]
    """Signed symmetric weights, one scale per channel or per tensor; everything else is as in the base class."""

    def _calc_initializer_quant_params(self) -> dict[str, Any]:
        """Return scales of weights; what isn't a weight is left to the base class."""
        tensors = {tensor.name: tensor for tensor in self.model.initializer()}
        everything: dict[str, Any] = self.tensors_to_quantize  # type: ignore[has-type]
        chosen = {
            name: info
            for name, info in everything.items()
            if name in tensors and info.tensor_type is QDQQuantTensorType.WEIGHT
        }
        self.tensors_to_quantize = {
            name: info for name, info in everything.items() if name in tensors and name not in chosen
        }
        found: dict[str, Any] = super()._calc_initializer_quant_params()
        self.tensors_to_quantize = everything
        largest = 64 if self.reduce_range else 127
        for name, info in chosen.items():
            array = numpy_helper.to_array(tensors[name])
            axis = None if info.axis is None else info.axis % array.ndim
            rest = tuple(place for place in range(array.ndim) if place != axis)
            scale = np.asarray(np.abs(array).max(axis=rest) / largest, array.dtype)
            scale = np.where(scale < np.finfo(array.dtype).tiny, np.ones((), array.dtype), scale)
            zero = np.zeros(scale.shape, np.int8)
            found[name] = QuantizationParams(zero_point=zero, scale=scale, quant_type=self.weight_qType, axis=axis)
        return found

    def _make_scale_zp_initializers(self, param_name: str, quant_params: Any, init_name_suffix: str = "") -> Any:
        """Add scale and zero point as they are in memory."""
        zero = np.asarray(quant_params["zero_point"], onnx.helper.tensor_dtype_to_np_dtype(quant_params["quant_type"]))
        made = QDQScaleZpInitializers(
            numpy_helper.from_array(np.asarray(quant_params["scale"]), f"{param_name}_scale{init_name_suffix}"),
            numpy_helper.from_array(zero, f"{param_name}_zero_point{init_name_suffix}"),
        )
        self.model.model.graph.initializer.extend([made.scale, made.zero_point])
        return made
