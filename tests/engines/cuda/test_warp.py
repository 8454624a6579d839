"""The CUDA source itself, which runs on the CPU behind a shim with AddressSanitizer and UndefinedBehaviorSanitizer."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keywarp.engines.cuda import kernels
from keywarp.export.graphs import FlatWarp, Graph, to_onnx
from keywarp.networks import FeatureMap, Warp
from tests.engines.cuda.cases import ROUNDING, SPECIAL, battery, random_case, special_case, worst
from tests.engines.cuda.mutants import MUTANTS, Mutant
from tests.engines.cuda.shim import NUMPY, Case, Shim, ShimError

WARP = (kernels.FOLDER / "warp.cuh").read_text()


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Shim:
    return Shim.build(tmp_path_factory.mktemp("shim"), WARP)


def test_equals_the_equations_for_all_kernels_shapes_and_flow_sizes(shim: Shim) -> None:
    cases = battery()
    errors = [worst(case, result) for case, result in zip(cases, shim.run(cases), strict=True)]
    assert max(errors) <= 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 12), st.integers(1, 12)),
    factor=st.sampled_from([1, 2, 4, 8]),
    kind=st.sampled_from(list(kernels.KERNELS)),
    motion=st.sampled_from([0.0, 0.5, 10.0]),
    scaled=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_equals_the_equations_for_any_shape(
    shim: Shim,
    shape: tuple[int, int, int, int],
    factor: int,
    kind: tuple[kernels.Layout, kernels.DType],
    motion: float,
    scaled: bool,
    seed: int,
) -> None:
    case = random_case(seed, shape, factor, motion, scaled, layout=kind[0], dtype=kind[1])
    (result,) = shim.run([case])
    assert worst(case, result) <= 1


@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_flow_that_is_nan_or_huge_points_outside(shim: Shim, value: float, axis: int) -> None:
    case = special_case(value, axis)
    (result,) = shim.run([case])
    assert worst(case, result) <= 1
    if abs(value) != 7.0:
        assert not result[..., ::2, 1::2].any()


def test_infinite_features_affect_only_the_cells_that_sample_them(shim: Shim) -> None:
    case = random_case(0, (1, 2, 6, 8), motion=0.0)
    case.features[0, 0, 2, 3] = np.inf
    case.flow[0, 0, 0, 7] = 100.0  # outside: zero times a neighbour would be NaN if that were infinite
    case.features[0, 0, 0, 7] = np.nan
    (result,) = shim.run([case])
    assert np.isinf(result[0, 0, 2, 3])
    assert result[0, 0, 0, 7] == 0
    assert np.isfinite(result[0, 1]).all()


def test_equals_the_bundles_graph_in_onnx_runtime_and_torch_on_maps_of_several_strides(shim: Shim) -> None:
    maps = (FeatureMap(6, 8), FeatureMap(10, 16), FeatureMap(3, 64))
    warp = Warp(maps)
    height, width = 19, 31
    sizes = [(2, m.channels, -(-height * 8 // m.stride), -(-width * 8 // m.stride)) for m in maps]
    torch.manual_seed(0)
    features, scales = [torch.randn(s) for s in sizes], [torch.rand(s) + 0.5 for s in sizes]
    flow = torch.randn(2, 2, height, width) * 4
    inputs = (*features, flow, *scales)
    names = ("features_0", "features_1", "features_2", "flow", "scale_0", "scale_1", "scale_2")
    graph = to_onnx(Graph("warp.onnx", FlatWarp(warp), names, ("warped_0", "warped_1", "warped_2"), inputs))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    in_runtime = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)})
    with torch.inference_mode():
        in_torch = warp(features, flow, scales)

    cases = [Case(x.numpy(), flow.numpy(), s.numpy()) for x, s in zip(features, scales, strict=True)]
    for result, onnx_result, torch_result in zip(shim.run(cases), in_runtime, in_torch, strict=True):
        # the graph divides positions by the map's size and multiplies them again, which costs it some bits
        np.testing.assert_allclose(result, onnx_result, rtol=0, atol=5e-5)
        np.testing.assert_allclose(result, torch_result.numpy(), rtol=0, atol=5e-5)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_equals_torch_in_16_bits(shim: Shim, dtype: kernels.DType) -> None:
    case = random_case(5, (2, 12, 9, 14), dtype=dtype, scaled=False)
    (result,) = shim.run([case])
    storage = {"f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    features, flow = torch.from_numpy(case.features).to(storage), torch.from_numpy(case.flow).to(storage)
    with torch.inference_mode():
        (expected,) = Warp([FeatureMap(12, 16)])([features], flow, [torch.ones_like(features)])
    largest = float(features.abs().max())
    np.testing.assert_allclose(result, expected.float().numpy(), rtol=0, atol=2 * ROUNDING[dtype] * largest)


def test_equals_the_equations_at_the_papers_size(shim: Shim) -> None:
    case = random_case(1, (1, 24, 38, 63), dtype="f16")
    (result,) = shim.run([case])
    assert worst(case, result) <= 1


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("layout", ["nchw", "hwc8"])
def test_rounds_once_to_nearest_and_even(shim: Shim, layout: kernels.Layout, dtype: kernels.DType) -> None:
    rng = np.random.default_rng(0)
    shape = (1, 8, 20, 20)
    case = Case.of(rng.normal(size=shape), np.zeros((1, 2, 20, 20)), rng.normal(size=shape), dtype, layout)
    assert case.scale is not None
    (result,) = shim.run([case])
    expected = (case.features * case.scale).astype(NUMPY[dtype])  # the product is exact: every tie is a true one
    np.testing.assert_array_equal(result, expected.astype(np.float32))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_a_planted_mistake_is_detected(mutant: Mutant, tmp_path: Path) -> None:
    mutated = Shim.build(tmp_path, mutant.plant(WARP))
    cases = battery()
    try:
        results = mutated.run(cases)
    except ShimError:  # a sanitizer has detected it
        return
    assert max(worst(case, result) for case, result in zip(cases, results, strict=True)) > 1


def test_a_layout_and_type_without_a_kernel_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no warp kernel for f32 in hwc8"):
        kernels.launch("hwc8", "f32", 1, 8, 4, 4)
