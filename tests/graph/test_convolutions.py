"""Two convolutions as one: what the one calculates is what both did, in double precision."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from n2n_edge.graph.convolutions import Convolution, beside, composed, identity, outlined
from tests.strategies import GRAPH_SETTINGS

Numbers = NDArray[np.float64]


def run(convolution: Convolution, maps: Numbers) -> Numbers:
    """Return what a convolution gives of ``(C, *sizes)``, tap by tap as it is defined."""
    padded = np.pad(maps, [(0, 0), *convolution.pads])
    sizes = convolution.sizes(maps.shape[1:])
    assert min(sizes) > 0
    outputs, inputs = convolution.out_channels // convolution.groups, convolution.weight.shape[1]
    total = np.zeros((convolution.out_channels, *sizes))
    for tap in np.ndindex(*convolution.kernel):
        seen = padded[
            (
                slice(None),
                *(
                    slice(at * step, at * step + (size - 1) * stride + 1, stride)
                    for at, step, size, stride in zip(
                        tap, convolution.dilations, sizes, convolution.strides, strict=True
                    )
                ),
            )
        ]
        for group in range(convolution.groups):
            out, within = slice(group * outputs, (group + 1) * outputs), slice(group * inputs, (group + 1) * inputs)
            total[out] += np.tensordot(convolution.weight[(out, slice(None), *tap)], seen[within], axes=1)
    return total + convolution.bias.reshape(-1, *(1,) * len(sizes))


@st.composite
def convolutions(draw: st.DrawFn, inputs: int, outputs: int, axes: int = 2, stride: int | None = None) -> Convolution:
    groups = draw(st.sampled_from([g for g in (1, 2, 4, 8) if inputs % g == 0 and outputs % g == 0]))
    kernel = draw(st.tuples(*[st.integers(1, 3)] * axes))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    bias = random.normal(size=outputs) * draw(st.booleans())
    return Convolution(
        random.normal(size=(outputs, inputs // groups, *kernel)),
        bias,
        draw(st.tuples(*[st.integers(1, 2)] * axes)) if stride is None else (stride,) * axes,
        draw(st.tuples(*[st.integers(1, 3)] * axes)),
        draw(st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * axes)),
        groups,
    )


@GRAPH_SETTINGS
@given(st.data())
def test_two_in_a_row_are_one(data: st.DataObject) -> None:
    axes = data.draw(st.sampled_from([1, 2, 2, 3]))
    inputs, between, outputs = (data.draw(st.sampled_from([4, 8])) for _ in range(3))
    first, second = (data.draw(convolutions(*ends, axes)) for ends in ((inputs, between), (between, outputs)))
    size = data.draw(st.tuples(*[st.integers(9, 13)] * axes))
    assume(min(second.sizes(first.sizes(size))) > 0)
    maps = np.random.default_rng(0).normal(size=(inputs, *size))
    apart = run(second, run(first, maps))

    merged = composed(first.padded_for(second), second.unpadded())

    assert merged.groups == np.gcd(first.groups, second.groups)
    assert np.allclose(run(merged, maps), run(second.unpadded(), run(first.padded_for(second), maps)), atol=1e-9)
    assert run(merged, maps).shape == apart.shape
    if first.pads_alike(second, size):
        assert np.allclose(run(merged, maps), apart, atol=1e-9)
    outline = outlined(first.padded_for(second), second.unpadded())
    assert (outline.weight.shape, outline.strides, outline.dilations, outline.pads, outline.groups) == (
        merged.weight.shape, merged.strides, merged.dilations, merged.pads, merged.groups,
    )  # fmt: skip


def convolution(outputs: int, inputs: int, kernel: int, pad: int, groups: int = 1, bias: float = 0.0) -> Convolution:
    weight = np.random.default_rng(kernel).normal(size=(outputs, inputs // groups, kernel, kernel))
    return Convolution(weight, np.full(outputs, bias), (1, 1), (1, 1), ((pad, pad),) * 2, groups)


@pytest.mark.parametrize(
    ("first", "second", "exact"),
    [
        (convolution(4, 4, 3, 1), convolution(4, 4, 1, 0), True),
        (convolution(4, 4, 3, 1), convolution(4, 4, 3, 0), True),
        (convolution(4, 4, 1, 0), convolution(4, 4, 3, 1, groups=4), True),
        (convolution(4, 4, 1, 0, bias=1.0), convolution(4, 4, 3, 1, groups=4), False),
        (convolution(4, 4, 3, 1), convolution(4, 4, 3, 1), False),
        (convolution(4, 4, 3, 2), convolution(4, 4, 3, 1), True),
    ],
)
def test_borders_are_exact_where_nothing_is_seen_beyond_them(
    first: Convolution, second: Convolution, exact: bool
) -> None:
    maps = np.random.default_rng(1).normal(size=(4, 8, 8))
    apart = run(second, run(first, maps))

    merged = run(composed(first.padded_for(second), second.unpadded()), maps)

    assert first.pads_alike(second, (8, 8)) == exact
    assert np.allclose(merged, apart, atol=1e-9) == exact
    far = max(first.kernel) + max(second.kernel)
    inside = (slice(None), slice(far, -far), slice(far, -far))
    assert np.allclose(merged[inside], apart[inside], atol=1e-9)


def test_a_depthwise_one_and_a_pointwise_one_are_dense_and_two_depthwise_ones_depthwise() -> None:
    depthwise, pointwise = convolution(8, 8, 3, 1, groups=8), convolution(8, 8, 1, 0)

    assert composed(depthwise, pointwise).weight.shape == (8, 8, 3, 3)
    assert composed(pointwise, depthwise.unpadded()).weight.shape == (8, 8, 3, 3)
    assert composed(depthwise, depthwise.unpadded()).weight.shape == (8, 1, 5, 5)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="the second one pads"):
        composed(convolution(4, 4, 1, 0), convolution(4, 4, 3, 1))
    with pytest.raises(ValueError, match="4 channels and one that reads 8"):
        composed(convolution(4, 4, 1, 0), convolution(8, 8, 1, 0))
    with pytest.raises(ValueError, match="from 4 channels to 8"):
        identity(convolution(8, 4, 1, 0))


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("pad", [(1, 1), (2, 0)])
def test_a_skip_connection_is_a_kernel_with_a_one_in_it(groups: int, pad: tuple[int, int]) -> None:
    branch = convolution(8, 8, 3, 0, groups=groups, bias=0.5)
    branch = Convolution(branch.weight, branch.bias, (1, 1), (1, 1), (pad, pad), groups)
    maps = np.random.default_rng(1).normal(size=(8, 7, 7))

    summed = beside(branch, identity(branch))

    assert summed is not None
    assert summed.groups == groups
    assert np.allclose(run(summed, maps), run(branch, maps) + maps, atol=1e-9)


@GRAPH_SETTINGS
@given(st.data())
def test_two_side_by_side_are_one_or_none(data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, 2))
    first, second = (data.draw(convolutions(8, 8, stride=stride)) for _ in range(2))
    size = data.draw(st.tuples(*[st.integers(9, 13)] * 2))
    maps = np.random.default_rng(0).normal(size=(8, *size))

    summed = beside(first, second)

    if summed is not None:
        assert np.allclose(run(summed, maps), run(first, maps) + run(second, maps), atol=1e-9)


def test_a_pointwise_branch_goes_into_a_padded_kernel_and_unlike_strides_go_nowhere() -> None:
    wide, narrow = convolution(8, 4, 3, 1), convolution(8, 4, 1, 0)
    maps = np.random.default_rng(1).normal(size=(4, 7, 7))

    summed = beside(narrow, wide)

    assert summed is not None
    assert summed.kernel == (3, 3)
    assert np.allclose(run(summed, maps), run(wide, maps) + run(narrow, maps), atol=1e-9)
    assert beside(narrow, convolution(8, 4, 3, 0)) is None
    assert beside(Convolution(narrow.weight, narrow.bias, (2, 2), (1, 1), narrow.pads), wide) is None
