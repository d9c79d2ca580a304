"""Inputs beside the image that are bound to a value: constants for search and training, defaults in what ships."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from n2n_edge.errors import InputError
from n2n_edge.reading import parse_json

__all__ = [
    "Binding",
    "bind",
    "bound_names",
    "bound_where_named",
    "parse_bindings",
    "values_by_name",
    "with_bound_inputs",
]

_KEY = "n2n_edge.bound"
"""Metadata of a model: JSON list of the inputs that are bound and stay inputs."""


@dataclass(frozen=True)
class Binding:
    """An input's name and values; `for_good` says that what ships has a constant instead of the input."""

    name: str
    values: tuple[float, ...]
    for_good: bool

    def __str__(self) -> str:
        return f"{self.name}{':=' if self.for_good else '='}{','.join(f'{value:g}' for value in self.values)}"


def parse_bindings(texts: Sequence[str]) -> tuple[Binding, ...]:
    """Return what ``scale=1.0``, ``orig_target_sizes=640,640`` or, for good, ``scale:=1.0`` say.

    Raises:
        InputError: another form, or a name that is given twice.
    """
    found: dict[str, Binding] = {}
    for text in texts:
        name, mark, numbers = text.rpartition("=")
        try:
            values = tuple(float(number) for number in numbers.split(","))
        except ValueError:
            values = ()
        for_good = name.endswith(":")
        name = name.removesuffix(":").strip()
        if not mark or not name or not values or not all(map(np.isfinite, values)):
            raise InputError(f"‹bind› {text}: give an input's name and its numbers, such as scale=1.0 or sizes=640,640")
        if name in found:
            raise InputError(f"‹bind› {text}: {name} is bound twice; give it once")
        found[name] = Binding(name, values, for_good)
    return tuple(found.values())


def values_by_name(texts: Sequence[str]) -> dict[str, list[float]]:
    """Return the values of inputs for a model that is run as it stands.

    Raises:
        InputError: as `parse_bindings`, or a binding for good, which only a model that is written anew can have.
    """
    bindings = parse_bindings(texts)
    for binding in bindings:
        if binding.for_good:
            raise InputError(f"‹bind› {binding}: a model that is run as it is keeps its inputs; write {binding.name}=")
    return {binding.name: list(binding.values) for binding in bindings}


def bound_where_named(models: Sequence[ir.Model], texts: Sequence[str]) -> tuple[ir.Model, ...]:
    """Return `models`, each bound as far as it has the inputs that `texts` name: students may lack a teacher's.

    Raises:
        InputError: as `values_by_name`, or an input that none of them has.
    """
    values_by_name(texts)
    bindings = parse_bindings(texts)
    has = [_bindable(model) for model in models]
    for binding in bindings:
        if not any(binding.name in names for names in has):
            raise InputError(f"‹bind› {binding}: {_has_no_such_input(models)}")
    return tuple(
        bind(model, own) if (own := [item for item in bindings if item.name in names]) else model
        for model, names in zip(models, has, strict=True)
    )


def bind(model: ir.Model, bindings: Sequence[Binding]) -> ir.Model:
    """Return a copy of `model` whose inputs named by `bindings` have these values as defaults, or are constants.

    An input that stays comes behind the others, so that the image is the first one. One that has a default, as those of
    a student of a bound teacher, gets another.

    Raises:
        InputError: no such input, other numbers than its shape takes, or none that is left.
    """
    model = model.clone()
    inputs = _bindable(model)
    for binding in bindings:
        value = inputs.get(binding.name)
        if value is None:
            raise InputError(f"‹bind› {binding}: {_has_no_such_input([model])}")
        array = _array(value, binding)
        value.const_value = ir.Tensor(array, name=binding.name)
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        if value in model.graph.inputs:
            model.graph.inputs.remove(value)
        if not value.is_initializer():
            model.graph.register_initializer(value)
        if not binding.for_good:
            model.graph.inputs.append(value)
    if all(value.is_initializer() for value in model.graph.inputs):
        raise InputError(f"‹bind› {bindings[0]}: no input is left for the image; bind the others alone")
    kept = bound_names(model) - {binding.name for binding in bindings}
    kept |= {binding.name for binding in bindings if not binding.for_good}
    model.metadata_props.pop(_KEY, None)
    if kept:
        model.metadata_props[_KEY] = json.dumps(sorted(kept))
    return model


def _bindable(model: ir.Model) -> dict[str, ir.Value]:
    """Return the inputs by name, those with a default included."""
    initializers = model.graph.initializers
    return {
        **{str(value.name): value for value in model.graph.inputs},
        **{name: initializers[name] for name in bound_names(model)},
    }


def _has_no_such_input(models: Sequence[ir.Model]) -> str:
    names = dict.fromkeys(
        name for model in models for name, value in _bindable(model).items()
        if not value.is_initializer() or name in bound_names(model)
    )  # fmt: skip
    which = "the model has" if len(models) == 1 else "the models have"
    return f"{which} no such input; {'it has' if len(models) == 1 else 'they have'} {', '.join(names)}"


def bound_names(model: ir.Model) -> frozenset[str]:
    """Return the initializers of `model` that are inputs with a default."""
    try:
        names = parse_json(model.metadata_props.get(_KEY) or "[]")
    except ValueError:
        names = []
    listed = names if isinstance(names, list) else []
    return frozenset(name for name in listed if isinstance(name, str) and name in model.graph.initializers)


def with_bound_inputs(model: ir.Model) -> ir.Model:
    """Return `model`, a copy where there are any, with its bound inputs among its inputs."""
    names = sorted(bound_names(model))
    if not names:
        return model
    model = model.clone()
    present = {value.name for value in model.graph.inputs}
    model.graph.inputs.extend(model.graph.initializers[name] for name in names if name not in present)
    return model


def _array(value: ir.Value, binding: Binding) -> np.ndarray:
    """Return numbers in the type and shape of an input: free sizes are one, but for the last that makes them fit."""
    sizes = [size if isinstance(size, int) and size > 0 else None for size in value.shape or ()]
    shape = [1 if size is None else size for size in sizes]
    count = len(binding.values)
    for axis in (axis for axis in reversed(range(len(sizes))) if sizes[axis] is None):
        if prod(shape) != count and count % prod(shape) == 0:
            shape[axis] *= count // prod(shape)
    if count not in (1, prod(shape)):
        declared = "x".join("?" if size is None else str(size) for size in sizes) or "a single number"
        raise InputError(
            f"‹bind› {binding}: {count} numbers for an input that is {declared}; give {prod(shape)}, or one"
        )
    kind = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
    numbers = np.array(binding.values)
    if not np.array_equal(numbers.astype(kind).astype(float), numbers) and not np.issubdtype(kind, np.floating):
        raise InputError(f"‹bind› {binding}: the input holds {value.dtype}, which these numbers aren't")
    return np.array(np.broadcast_to(numbers.reshape(()) if count == 1 else numbers.reshape(shape), shape), dtype=kind)
