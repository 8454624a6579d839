"""The Open Inference Protocol, by Triton's own client and by hand."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferenceServerException, InferInput, InferRequestedOutput

from keywarp.server.errors import BadMessageError
from keywarp.server.routes.tensors import parse_request
from tests.server.conftest import Running, Starter, eventually
from tests.server.media import GREEN, RED, jpeg, plain
from tests.tiny_bundle import tiny_bundle

LENGTH = "Inference-Header-Content-Length"


@pytest.fixture
def triton(server: Running) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        yield client


def image(data: bytes) -> InferInput:
    tensor = InferInput("image", [1], "BYTES")
    return tensor.set_data_from_numpy(np.array([data], dtype=object))


def frame(pixels: NDArray[np.uint8], *, binary: bool = True) -> InferInput:
    return InferInput("frame", list(pixels.shape), "UINT8").set_data_from_numpy(pixels, binary_data=binary)


def kind(result: Any) -> tuple[str, int]:
    parameters = result.get_response()["parameters"]
    return parameters["kind"], parameters["key_age"]


def test_the_server_describes_itself(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("tiny")
    assert triton.is_model_ready("tiny", triton.get_model_metadata("tiny")["versions"][0])
    assert not triton.is_model_ready("nosuch")
    metadata = triton.get_server_metadata()
    assert metadata["name"] == "keywarp"
    assert {"sequence", "binary_tensor_data", "statistics"} <= {*metadata["extensions"]}
    assert [m["name"] for m in triton.get_model_repository_index()] == ["tiny"]


def test_a_model_describes_its_inputs_and_outputs(triton: InferenceServerClient) -> None:
    metadata = triton.get_model_metadata("tiny")
    assert [(t["name"], t["datatype"], t["shape"]) for t in metadata["inputs"]] == [
        ("image", "BYTES", [1]),
        ("frame", "UINT8", [-1, -1, 3]),
    ]
    assert [t["name"] for t in metadata["outputs"]] == ["labels"]
    config = triton.get_model_config("tiny")
    assert config["max_batch_size"] == 0
    assert "sequence_batching" in config
    assert config["input"][0]["data_type"] == "TYPE_STRING"


@pytest.mark.parametrize("sequence", [7, "gate/north é"])
def test_a_sequence_is_a_stream(server: Running, triton: InferenceServerClient, sequence: int | str) -> None:
    kinds = []
    for number in range(5):
        result = triton.infer(
            "tiny",
            [image(jpeg(GREEN))],
            sequence_id=sequence,
            sequence_start=number == 0,
            sequence_end=number == 4,
            parameters={"interval": 3} if number == 0 else None,
        )
        kinds.append(kind(result))
        labels = result.as_numpy("labels")
        assert labels.dtype == np.uint8
        assert labels.ndim == 2
        assert (labels == 2).all()
        assert len(server.http.get("/v1/streams").json()) == (number < 4)
    assert kinds == [("key", 0), ("propagated", 1), ("propagated", 2), ("key", 0), ("propagated", 1)]


@pytest.mark.parametrize(("max_age", "kinds"), [(1e-5, ["key", "key"]), (3600, ["key", "propagated"])])
def test_a_sequence_may_limit_the_age_of_its_key_frames(
    triton: InferenceServerClient, max_age: float, kinds: list[str]
) -> None:
    responses = []
    for start in (True, False):
        options = {"max_age": max_age} if start else None
        result = triton.infer(
            "tiny", [image(jpeg())], sequence_id=5, sequence_start=start, sequence_end=not start, parameters=options
        )
        responses.append(result.get_response()["parameters"])
    assert [response["kind"] for response in responses] == kinds
    assert [response["key_age_seconds"] > 0 for response in responses] == [kind == "propagated" for kind in kinds]


def test_sequences_are_independent_of_each_other(triton: InferenceServerClient) -> None:
    for sequence in (1, "1", 2):
        triton.infer("tiny", [image(jpeg())], sequence_id=sequence, sequence_start=True)
    ages = [kind(triton.infer("tiny", [image(jpeg())], sequence_id=s, sequence_end=True))[1] for s in (2, 1, "1")]
    assert ages == [1, 1, 1]


def test_a_header_names_a_sequence_where_a_proxy_can_see_it(triton: InferenceServerClient) -> None:
    named = {"Keywarp-Sequence": "gate/north"}
    assert (
        kind(triton.infer("tiny", [image(jpeg())], headers=named, sequence_id="gate/north", sequence_start=True))[1]
        == 0
    )
    result = triton.infer("tiny", [image(jpeg())], headers=named)
    assert kind(result) == ("propagated", 1)
    assert result.get_response()["parameters"]["sequence_id"] == "gate/north"
    with pytest.raises(InferenceServerException, match="the header Keywarp-Sequence says 'gate/north'"):
        triton.infer("tiny", [image(jpeg())], headers=named, sequence_id=7)
    triton.infer("tiny", [image(jpeg())], headers=named, sequence_id="gate/north", sequence_end=True)


def test_a_sequence_can_be_started_again(server: Running, triton: InferenceServerClient) -> None:
    for _ in range(2):
        assert kind(triton.infer("tiny", [image(jpeg())], sequence_id=5, sequence_start=True)) == ("key", 0)
    assert len(server.http.get("/v1/streams").json()) == 1
    triton.infer("tiny", [image(jpeg())], sequence_id=5, sequence_end=True)


def test_a_request_without_a_sequence_is_a_stream_of_one_frame(server: Running, triton: InferenceServerClient) -> None:
    for _ in range(2):
        assert kind(triton.infer("tiny", [image(jpeg())])) == ("key", 0)
    assert server.http.get("/v1/streams").json() == []


@pytest.mark.parametrize("binary", [True, False])
def test_raw_pixels_give_the_labels_of_their_image(triton: InferenceServerClient, binary: bool) -> None:
    wanted = [InferRequestedOutput("labels", binary_data=binary)]
    for pixels in (plain(RED), plain(RED)[np.newaxis]):
        result = triton.infer("tiny", [frame(pixels, binary=binary)], outputs=wanted, request_id="mine")
        assert result.get_response()["id"] == "mine"
        assert (result.as_numpy("labels") == 1).all()


def test_detections_are_tensors(start: Starter, tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "boxes", name="boxes", detection=True)
    server = start(models=tmp_path)
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        result = client.infer("boxes", [image(jpeg(RED))])
        boxes, scores, classes = (result.as_numpy(name) for name in ("boxes", "scores", "classes"))
        assert boxes.shape == (len(scores), 4)
        assert (boxes.dtype, scores.dtype, classes.dtype) == (np.float32, np.float32, np.int32)
        assert [t["name"] for t in client.get_model_metadata("boxes")["outputs"]] == ["boxes", "scores", "classes"]


def test_statistics_count_all_protocols(start: Starter) -> None:
    server = start()
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        [before] = client.get_inference_statistics("tiny")["model_stats"]
        assert before["inference_count"] == 0
        for _ in range(3):
            client.infer("tiny", [image(jpeg())])
        server.http.post("/v1/streams", json={"id": "rest"})
        server.frame("rest")
        with pytest.raises(InferenceServerException):
            client.infer("tiny", [image(b"no image")])
        [after] = client.get_inference_statistics()["model_stats"]
    assert after["inference_count"] == 4
    figures = after["inference_stats"]
    assert (figures["success"]["count"], figures["fail"]["count"]) == (4, 1)
    parts = sum(figures[part]["ns"] for part in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert parts == pytest.approx(figures["success"]["ns"], abs=4)
    assert after["last_inference"] > 1.6e12
    assert (after["version"], after["bundle_version"]) == ("1", "1.0.0")  # Triton's clients want a whole number
    assert before["batch_stats"] == []
    [batches] = after["batch_stats"]
    assert (batches["batch_size"], batches["compute_infer"]) == (1, figures["compute_infer"])


def test_a_version_may_be_named_by_its_first_number(triton: InferenceServerClient) -> None:
    for version in ("1.0.0", "1", ""):
        assert triton.is_model_ready("tiny", version)
        assert triton.infer("tiny", [image(jpeg())], model_version=version).get_response()["model_version"] == "1.0.0"
    assert not triton.is_model_ready("tiny", "10")


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: {"b64": text}], ids=["string", "object"])
def test_an_image_may_be_base64_in_json(server: Running, wrap: Callable[[str], Any]) -> None:
    data = [wrap(b64encode(jpeg(GREEN)).decode())]
    body = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": data}]}
    response = server.http.post("/v2/models/tiny/infer", json=body)
    assert response.status_code == 200, response.text
    assert set(response.json()["outputs"][0]["data"]) == {2}


def test_a_refused_request_is_answered_with_the_reason(server: Running, triton: InferenceServerClient) -> None:
    cases: list[tuple[str, list[InferInput], dict[str, Any]]] = [
        ("there is no model 'nosuch'", [image(jpeg())], {"model_name": "nosuch"}),
        ("has the version", [image(jpeg())], {"model_version": "9"}),
        ("hasn't started", [image(jpeg())], {"sequence_id": 99}),
        ("not a JPEG, PNG or WebP", [image(b"no image")], {}),
        ("exactly one input", [image(jpeg()), frame(plain())], {}),
        ("exactly one input", [InferInput("other", [1], "BYTES").set_data_from_numpy(np.array([b"x"], object))], {}),
        ("there is no output 'masks'", [image(jpeg())], {"outputs": [InferRequestedOutput("masks")]}),
        ("shape", [frame(np.zeros((4, 4), np.uint8))], {}),
        ("interval", [image(jpeg())], {"sequence_id": 1, "sequence_start": True, "parameters": {"interval": 0}}),
        ("encoding 'gzip'", [image(jpeg())], {"request_compression_algorithm": "gzip"}),
    ]
    for detail, inputs, options in cases:
        with pytest.raises(InferenceServerException, match=detail):
            triton.infer(**({"model_name": "tiny", "inputs": inputs} | options))
    assert server.http.get("/v1/streams").json() == []
    response = server.http.get("/v2/models/nosuch")
    assert response.json()["error"] == response.json()["detail"]
    assert response.headers["content-type"] == "application/problem+json"
    assert "error" not in server.http.get("/v1/models/nosuch").json()


def test_a_damaged_frame_leaves_a_gap(triton: InferenceServerClient) -> None:
    triton.infer("tiny", [image(jpeg())], sequence_id=3, sequence_start=True)
    with pytest.raises(InferenceServerException):
        triton.infer("tiny", [image(jpeg()[:100])], sequence_id=3)
    result = triton.infer("tiny", [image(jpeg())], sequence_id=3, sequence_end=True)
    assert result.get_response()["parameters"]["frame"] == 2
    assert kind(result) == ("key", 0)


def test_an_idle_sequence_expires(start: Starter) -> None:
    server = start(idle_timeout=0.2)
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        client.infer("tiny", [image(jpeg())], sequence_id=1, sequence_start=True)
        eventually(lambda: not server.http.get("/v1/streams").json())
        with pytest.raises(InferenceServerException, match="expired"):
            client.infer("tiny", [image(jpeg())], sequence_id=1)


def test_a_body_over_the_limit_is_refused(start: Starter) -> None:
    server = start(max_message_bytes=2000)
    response = server.http.post("/v2/models/tiny/infer", content=bytes(3000))
    assert response.status_code == 413
    assert "larger than 2000" in response.json()["error"]


HEAD = {"inputs": [{"name": "frame", "shape": [2, 2], "datatype": "UINT8", "parameters": {"binary_data_size": 4}}]}


@pytest.mark.parametrize(
    ("head", "rest", "length", "detail"),
    [
        ({}, b"", None, "inputs"),
        (HEAD, b"12345", "", "is '', but the body has"),
        (HEAD, b"", "99999", "is '99999', but the body has"),
        (HEAD, b"123", None, "more than the body holds"),
        (HEAD, b"12345", None, "belong to no input"),
        ({"inputs": [HEAD["inputs"][0] | {"shape": [3, 2]}]}, b"1234", None, "can't have 4 bytes"),
        ({"inputs": [HEAD["inputs"][0] | {"shape": [-2, -2]}]}, b"1234", None, "has the shape"),
        ({"inputs": [HEAD["inputs"][0] | {"datatype": "FP64"}]}, b"1234", None, "FP64"),
        ({"inputs": [HEAD["inputs"][0] | {"datatype": "BYTES"}]}, b"1234", None, "one element"),
        ({"inputs": [{"name": "x", "shape": [2], "datatype": "UINT8", "data": [1, 300]}]}, b"", None, "isn't UINT8"),
        ({"inputs": [{"name": "x", "shape": [3], "datatype": "UINT8", "data": [1, 2]}]}, b"", None, "isn't UINT8"),
        (
            {"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a"]}]},
            b"",
            None,
            "base64",
        ),
    ],
)
def test_an_invalid_body_is_refused_with_the_reason(
    head: dict[str, Any], rest: bytes, length: str | None, detail: str
) -> None:
    text = json.dumps(head).encode()
    with pytest.raises(BadMessageError, match=detail):
        parse_request(text + rest, str(len(text)) if length is None else length)


def test_a_valid_body_is_parsed() -> None:
    text = json.dumps(HEAD).encode()
    _, tensors = parse_request(text + b"\1\2\3\4", str(len(text)))
    np.testing.assert_array_equal(tensors["frame"], [[1, 2], [3, 4]])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["UINT8", "BYTES", "frame", "image"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["inputs", "name", "shape", "datatype", "parameters", "data"]), inner)
        ),
    ),
    st.binary(max_size=20),
)
def test_any_body_is_either_parsed_or_refused(content: Any, rest: bytes) -> None:
    text = json.dumps(content).encode()
    for length in (None, str(len(text))):
        with suppress(BadMessageError):
            parse_request(text + rest, length)


def test_masks_are_sent_to_those_who_ask_for_them(start: Starter, tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "models" / "instances", name="instances", instances=True)
    server = start(models=tmp_path / "models")
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        outputs = [(t["name"], t["datatype"], t["shape"]) for t in client.get_model_metadata("instances")["outputs"]]
        assert outputs[3:] == [("keypoints", "FP32", [-1, 2, 3]), ("masks", "BOOL", [-1, -1, -1])]
        without = client.infer("instances", [image(jpeg(RED))])
        assert without.as_numpy("masks") is None
        assert without.as_numpy("keypoints").shape == (32, 2, 3)
        asked = client.infer("instances", [image(jpeg(RED))], outputs=[InferRequestedOutput("masks")])
        assert asked.as_numpy("masks").shape == (32, 64, 128)
        assert asked.as_numpy("masks").dtype == np.bool_
