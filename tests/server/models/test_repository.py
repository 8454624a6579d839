"""Triton's repository API: its client loads, unloads and lists the models of a real server."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferenceServerException

from tests.server.conftest import Running, eventually
from tests.server.media import RED, jpeg
from tests.server.models.loading import HeldLoads, damage, load
from tests.server.routes.test_open_inference import image, kind
from tests.server.routes.test_streams import problem
from tests.tiny_bundle import tiny_bundle


def index(triton: InferenceServerClient) -> dict[str, tuple[str, str]]:
    return {entry["name"]: (entry["state"], entry["reason"]) for entry in triton.get_model_repository_index()}


def test_a_model_is_loaded_and_unloaded(triton: InferenceServerClient, folder: Path) -> None:
    assert index(triton) == {"other": ("READY", ""), "tiny": ("READY", "")}
    triton.unload_model("tiny")
    assert not triton.is_model_ready("tiny")
    assert triton.is_server_ready()
    assert index(triton)["tiny"] == ("UNAVAILABLE", "unloaded")
    with pytest.raises(InferenceServerException, match="there is no model 'tiny'"):
        triton.infer("tiny", [image(jpeg())])
    tiny_bundle(folder / "late", name="late")
    assert index(triton)["late"] == ("UNAVAILABLE", "unloaded")
    for name in ("tiny", "late"):
        triton.load_model(name)
        assert triton.is_model_ready(name)
        assert (triton.infer(name, [image(jpeg(RED))]).as_numpy("labels") == np.uint8(1)).all()
    with pytest.raises(InferenceServerException, match="there is no bundle 'nosuch'"):
        triton.load_model("nosuch")
    with pytest.raises(InferenceServerException, match="'nosuch' is not loaded"):
        triton.unload_model("nosuch")
    with pytest.raises(InferenceServerException, match="aren't supported"):
        triton.load_model("tiny", config="{}")


def test_the_index_says_why_a_model_is_unavailable(triton: InferenceServerClient, folder: Path) -> None:
    triton.unload_model("tiny")
    damage(folder, "tiny")
    with pytest.raises(InferenceServerException, match="can't be loaded"):
        triton.load_model("tiny")
    state, reason = index(triton)["tiny"]
    assert (state, "tiny/head.onnx doesn't match" in reason) == ("UNAVAILABLE", True)
    triton.unload_model("tiny")
    assert index(triton)["tiny"] == ("UNAVAILABLE", "unloaded")


def test_the_index_can_list_ready_models_only(server: Running, held_loads: HeldLoads, folder: Path) -> None:
    tiny_bundle(folder / "late", name="late")
    with ThreadPoolExecutor() as pool, InferenceServerClient(server.url.removeprefix("http://")) as client:
        late = pool.submit(load, server, "late")
        eventually(lambda: index(client)["late"] == ("LOADING", ""))
        ready = server.http.post("/v2/repository/index", json={"ready": True}).json()
        assert [entry["name"] for entry in ready] == ["other", "tiny"]
        held_loads.release()
        assert late.result().is_success
    assert problem(server.http.post("/v2/repository/index", content=b"[")).status == 400


def test_a_sequence_keeps_the_version_that_it_started_with(triton: InferenceServerClient, folder: Path) -> None:
    def infer(version: str = "", **options: Any) -> tuple[str, str, int]:
        result = triton.infer("tiny", [image(jpeg())], model_version=version, **options)
        return result.get_response()["model_version"], *kind(result)

    assert infer(sequence_id=1, sequence_start=True) == ("1.0.0", "key", 0)
    tiny_bundle(folder / "tiny", version="2.0.0")
    triton.load_model("tiny")
    assert infer(sequence_id=1) == ("1.0.0", "propagated", 1)
    assert infer(sequence_id=2, sequence_start=True) == ("2.0.0", "key", 0)
    assert infer("1.0.0", sequence_id=1) == ("1.0.0", "propagated", 2)
    for version, sequence, start in (("2.0.0", 1, False), ("1.0.0", 2, False), ("1.0.0", 3, True)):
        with pytest.raises(InferenceServerException, match="has the version"):
            infer(version, sequence_id=sequence, sequence_start=start)
    triton.unload_model("tiny")
    assert index(triton)["tiny"] == ("UNLOADING", "2 streams continue")
    assert infer(sequence_id=1, sequence_end=True) == ("1.0.0", "propagated", 3)
    triton.unload_model("tiny", query_params={"force": "true"})
    with pytest.raises(InferenceServerException, match="there is no model 'tiny'"):
        infer(sequence_id=2)
    assert index(triton)["tiny"] == ("UNAVAILABLE", "unloaded")
