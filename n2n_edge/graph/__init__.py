"""The ONNX graph: load, layers, channel groups, architectures, `build()` and what a graph costs."""

from n2n_edge.graph.architecture import Architecture
from n2n_edge.graph.costs import Amounts, Costs, NodeCost, Place, costs, inferred_costs, node_amounts, node_costs
from n2n_edge.graph.groups import ChannelGroup
from n2n_edge.graph.input_shape import at_one_size, parse_input_shape, shape_words, with_input_shape
from n2n_edge.graph.labels import Labels
from n2n_edge.graph.layers import Layer, layers_by_name
from n2n_edge.graph.load import load_model, load_proto, save_model, serialize
from n2n_edge.graph.op import STANDARD_DOMAINS, Like, Macs, Op, Weight, counted_op, op_key, op_of, register_op
from n2n_edge.graph.shape_run import DEFAULT_SPATIAL_SIZE
from n2n_edge.graph.shapes import batch_of
from n2n_edge.graph.teacher import BaseGraph, Teacher, Touchable, build, surviving
from n2n_edge.graph.torch_export import export_module, export_program
from n2n_edge.graph.width_costs import WidthCosts

__all__ = [
    "DEFAULT_SPATIAL_SIZE",
    "STANDARD_DOMAINS",
    "Amounts",
    "Architecture",
    "BaseGraph",
    "ChannelGroup",
    "Costs",
    "Labels",
    "Layer",
    "Like",
    "Macs",
    "NodeCost",
    "Op",
    "Place",
    "Teacher",
    "Touchable",
    "Weight",
    "WidthCosts",
    "at_one_size",
    "batch_of",
    "build",
    "costs",
    "counted_op",
    "export_module",
    "export_program",
    "inferred_costs",
    "layers_by_name",
    "load_model",
    "load_proto",
    "node_amounts",
    "node_costs",
    "op_key",
    "op_of",
    "parse_input_shape",
    "register_op",
    "save_model",
    "serialize",
    "shape_words",
    "surviving",
    "with_input_shape",
]
