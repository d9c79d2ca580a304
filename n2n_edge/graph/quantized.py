"""What of a model is calculated in which precision: its layers with their weights' types, conversions, MACs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from n2n_edge.graph.costs import CostPlan
from n2n_edge.graph.layers import float_layers, quantized_weights
from n2n_edge.graph.op import Op, counted_op
from n2n_edge.graph.precision import kind_of
from n2n_edge.graph.shape_run import analysing
from n2n_edge.graph.shapes import types_of
from n2n_edge.graph.subgraphs import flattened
from n2n_edge.metrics.precisions import BYTES, Precision

__all__ = ["LayerPrecision", "Precisions", "QuantizedFormat", "precision_table"]

QuantizedFormat = Literal["QDQ", "QOperator", "dynamic", "weights"]
"""Pairs of QuantizeLinear and DequantizeLinear around float operators; operators on integers; those that find the
scales of activations when they run; weights alone."""


@dataclass(frozen=True)
class LayerPrecision:
    """A weighted operator: what it is calculated in, how its weight is stored (``int8``) and scaled.

    `per_channel` is None where the weight has no scale beside it.
    """

    name: str
    op_type: str
    precision: Precision
    weight_type: str
    per_channel: bool | None
    params: int
    macs: int


@dataclass(frozen=True)
class Precisions:
    """The layers in the order of the graph, the formats in which it is quantized, and MACs by precision.

    `conversions` are the QuantizeLinear and DequantizeLinear that really convert: at the borders of the network and
    around float islands.
    """

    layers: tuple[LayerPrecision, ...]
    formats: tuple[QuantizedFormat, ...]
    macs: Mapping[Precision, int]
    conversions: int

    def to_json(self) -> dict[str, object]:
        """Return the table as a JSON object."""
        return {
            "formats": list(self.formats),
            "macs": dict(self.macs),
            "conversions": self.conversions,
            "layers": [
                {
                    "name": layer.name,
                    "op_type": layer.op_type,
                    "precision": layer.precision,
                    "weight_type": layer.weight_type,
                    "per_channel": layer.per_channel,
                    "params": layer.params,
                    "macs": layer.macs,
                }
                for layer in self.layers
            ],
        }


def precision_table(model: ir.Model) -> Precisions:
    """Return what of `model` is calculated in which precision.

    Raises:
        InputError: ONNX Runtime can't run the model, or it holds what can't be counted.
    """
    with analysing(model):
        flat = flattened(model)
        types = types_of(flat)
        plan = CostPlan(flat, types.kinds)
        amounts = plan.at(*plan.sizes_of(types.shapes))
    nodes = list(flat.graph)
    at = {node: (index, plan.nodes[index]) for index, node in enumerate(nodes)}
    kept = [(name, node, weight, None) for name, node, weight in float_layers(flat)]
    weighted = [*kept, *quantized_weights(flat, [name for name, *_ in kept])]
    layers = []
    for name, node, weight, scale in sorted(weighted, key=lambda row: at[row[1]][0]):
        index, spec = at[node]
        scales = None if scale is None else scale.const_value
        layers.append(
            LayerPrecision(
                name,
                node.op_type,
                spec.precision,
                _type_in_words(kind_of(weight, types.kinds)),
                None if scales is None else scales.size > 1,
                int(amounts.node_params[index, 0]),
                int(amounts.node_macs[index, 0]),
            )
        )
    macs = {
        each: sum(int(amounts.node_macs[index, 0]) for index, spec in at.values() if spec.precision == each)
        for each in BYTES
    }
    converted = [spec for _, spec in at.values() if spec.op.kernel == "conversion" and spec.inputs]
    return Precisions(
        tuple(layers),
        _formats(nodes),
        {each: count for each, count in macs.items() if count},
        sum(spec.precision != "int8" for spec in converted),
    )


def _formats(nodes: list[ir.Node]) -> tuple[QuantizedFormat, ...]:
    found: dict[QuantizedFormat, None] = {}
    for node in nodes:
        row = counted_op(node.op_type, node.domain)
        if row.kernel not in ("conv", "conv_transpose", "gemm", "matmul"):
            continue
        if row.quantized:
            found["weights" if not row.integer else "dynamic" if _is_dynamic(node, row) else "QOperator"] = None
        elif _is_dequantized(node, 1):
            found["QDQ" if _is_dequantized(node, 0) else "weights"] = None
    return tuple(found)


def _is_dynamic(node: ir.Node, row: Op) -> bool:
    return row.integer_sums or (row.like is not None and row.like.gives_float)


def _is_dequantized(node: ir.Node, index: int) -> bool:
    value = node.inputs[index] if index < len(node.inputs) else None
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _type_in_words(kind: ir.DataType | None) -> str:
    return "unknown" if kind is None else {"FLOAT": "float32", "DOUBLE": "float64"}.get(kind.name, kind.name.lower())
