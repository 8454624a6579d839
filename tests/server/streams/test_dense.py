"""A model for dense maps over HTTP, WebSocket and the Open Inference Protocol."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput

from keywarp.client import ProcessedFrame
from keywarp.client.color_map import PALETTE
from keywarp.engines import DenseMap, FrameKind, FrameResult
from keywarp.engines.manifest import DenseSettings
from keywarp.protocol import Dense, Masks, Resolution, Result
from keywarp.server.overlay import draw
from keywarp.server.streams.results import encode_dense, encode_result
from tests.server.conftest import Starter
from tests.server.media import RED, jpeg, plain
from tests.tiny_bundle import tiny_bundle

DEPTH = DenseSettings(stride=4, quantity="depth", unit="m")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    tiny_bundle(path / "redness", name="redness", dense=True)
    tiny_bundle(path / "tiny")
    return path


def processed(values: NDArray[np.float32], masks: Masks = "png", resolution: Resolution = "model") -> ProcessedFrame:
    found = FrameResult(3, FrameKind.KEY, 0, 48, 64, DenseMap(values), inference=0.02, postprocess=0.001)
    return ProcessedFrame(
        encode_result(found, (), stream="s", decode=0, waited=0, masks=masks, resolution=resolution, dense=DEPTH)
    )


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_values_arrive_to_a_step_of_their_range(scale: float) -> None:
    values = (scale * np.random.default_rng(0).normal(5, 3, (30, 40))).astype(np.float32)
    given = processed(values)
    assert given.values.dtype == np.float32
    np.testing.assert_allclose(given.values, values, atol=0.51 * float(np.ptp(values)) / 65535)
    assert (given.values.min(), given.values.max()) == (values.min(), values.max())


def test_a_flat_map_arrives_exactly() -> None:
    np.testing.assert_array_equal(processed(np.full((3, 4), 2.5, np.float32)).values, 2.5)


def test_a_map_says_what_its_values_are() -> None:
    values = np.array([[0.5, 1], [2, 80]], np.float32)
    found = encode_dense(values, DEPTH)
    assert (found.width, found.height, found.quantity, found.unit) == (2, 2, "depth", "m")
    assert (found.minimum, found.maximum) == (0.5, 80)
    assert processed(values).result.segmentation is None
    assert processed(values).result.detections is None


def test_pixels_may_be_left_out() -> None:
    given = processed(np.array([[0.5, 80]], np.float32), masks="none")
    assert given.result.dense == Dense(width=2, height=1, quantity="depth", unit="m", minimum=0.5, maximum=80)
    with pytest.raises(ValueError, match="the stream asked for none"):
        _ = given.values


@pytest.mark.parametrize("masks", ["png", "rle"])
def test_a_map_may_have_the_frames_resolution(masks: Masks) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    at = {resolution: processed(values, masks, resolution) for resolution in get_args(Resolution)}
    assert (at["model"].values.shape, at["frame"].values.shape) == ((3, 4), (48, 64))
    np.testing.assert_allclose(at["model"].frame_values, at["frame"].values, atol=1e-3)
    np.testing.assert_allclose(at["frame"].values[8::16, 8::16], values, atol=0.2)  # at the cells' centres


def test_single_frames_and_their_options(start: Starter) -> None:
    server = start()
    [model] = [m for m in server.http.get("/v1/models").json() if m["name"] == "redness"]
    assert (model["task"], model["classes"]) == ("dense", [])
    for options, shape in (({}, (4, 8)), ({"resolution": "frame"}, (64, 128))):
        server.http.post("/v1/streams", json={"id": "d", "model": "redness", **options})
        given = ProcessedFrame(Result.model_validate_json(server.frame("d", jpeg(RED)).text))
        assert given.result.dense is not None
        assert (given.result.dense.quantity, given.result.dense.unit) == ("redness", "steps")
        assert given.values.shape == shape
        np.testing.assert_allclose(given.values, RED[0] - 100, atol=2)
        server.http.delete("/v1/streams/d")


def test_the_open_inference_protocol_has_values(start: Starter) -> None:
    server = start()
    with InferenceServerClient(server.http.base_url.netloc.decode()) as triton:
        outputs = triton.get_model_metadata("redness")["outputs"]
        assert outputs == [{"name": "values", "datatype": "FP32", "shape": [-1, -1]}]
        frame = plain(RED)
        tensor = InferInput("frame", list(frame.shape), "UINT8")
        tensor.set_data_from_numpy(frame)
        values = triton.infer("redness", [tensor]).as_numpy("values")
    assert (values.dtype, values.shape) == (np.float32, (4, 8))
    np.testing.assert_allclose(values, RED[0] - 100, atol=1e-3)


def test_previews_have_the_colours_of_the_map() -> None:
    values = np.repeat(np.linspace(3, 7, 8, dtype=np.float32)[np.newaxis], 6, axis=0)
    found = FrameResult(3, FrameKind.KEY, 0, 480, 640, DenseMap(values), inference=0.02, postprocess=0.001)
    picture = simplejpeg.decode_jpeg(draw(np.zeros((480, 640, 3), np.uint8), found, (), 640))
    for column, color in ((20, PALETTE[0]), (320, PALETTE[128]), (620, PALETTE[255])):
        np.testing.assert_allclose(picture[300, column], 0.75 * color, atol=12)
