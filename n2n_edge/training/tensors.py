"""Tensors between onnx_ir and torch."""

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

__all__ = ["tensor_from_ir", "tensor_to_ir"]


def tensor_from_ir(tensor: ir.TensorProtocol) -> Tensor:
    """Copy an ONNX tensor into a torch tensor of its own type (bfloat16 keeps its values and type)."""
    if tensor.dtype == ir.DataType.BFLOAT16:
        return torch.from_numpy(tensor.numpy().astype(np.float32)).to(torch.bfloat16)
    array = np.array(tensor.numpy())
    if array.dtype in (np.uint16, np.uint32, np.uint64):  # torch calculates with none of them
        array = array.astype(np.int64)
    if tensor.dtype in (ir.DataType.INT4, ir.DataType.UINT4):
        array = array.astype(np.int8)
    return torch.from_numpy(array)


def tensor_to_ir(tensor: Tensor, like: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """Copy a torch tensor into an ONNX tensor with the element type of `like`."""
    array = tensor.detach().cpu().contiguous().to(torch.float32 if tensor.is_floating_point() else tensor.dtype).numpy()
    return ir.Tensor(np.asarray(array, order="C").astype(like.numpy().dtype), dtype=like.dtype, name=name)
