"""A network's ONNX file is imported, served, and gives what ONNX Runtime does of the file."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from keywarp.client import Client
from keywarp.importing import Hints, ImportOptions, PreparationHints, import_file, picture
from tests.server.conftest import running

SIZE = 64, 96  # the network's input in pixels
CLASSES = "road", "sky", "tree"
FRAMES = 5
INTERVAL = 2


def write_segmenter(path: Path) -> Path:
    """Write a segmenter: logits of three classes at stride 8, enlarged to the image's size."""
    random = np.random.default_rng(0)
    shapes = {"first": (8, 3, 8, 8), "second": (8, 8, 3, 3), "last": (len(CLASSES), 8, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], strides=[8, 8]),
        helper.make_node("Conv", ["a", "second"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "last"], ["low"]),
        helper.make_node("Resize", ["low", "", "", "size"], ["logits"], mode="linear"),
    ]
    constants = [
        numpy_helper.from_array(random.normal(0, np.prod(s[1:]) ** -0.5, s).astype(np.float32), name)
        for name, s in shapes.items()
    ]
    constants.append(numpy_helper.from_array(np.array([1, len(CLASSES), *SIZE]), "size"))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(CLASSES), *SIZE])
    graph = helper.make_graph(nodes, "segmenter", [image], [logits], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def frames() -> list[NDArray[np.uint8]]:
    """Frames of 128 x 192 of a scene that moves sideways."""
    scene = (255 * picture(128, 192 + 4 * FRAMES)[0].transpose(1, 2, 0)).astype(np.uint8)
    return [np.ascontiguousarray(scene[:, 4 * n : 4 * n + 192]) for n in range(FRAMES)]


def labels_of_file(path: Path, frame: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The file's own labels for a frame, as a user of ONNX Runtime would get them."""
    small = cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": small.transpose(2, 0, 1)[np.newaxis]})
    return np.asarray(logits[0].argmax(axis=0))


def test_an_imported_network_is_served_with_the_results_of_its_file(tmp_path: Path) -> None:
    file = write_segmenter(tmp_path / "segmenter.onnx")
    plain = PreparationHints(fit="stretch", mean=(0, 0, 0), std=(255, 255, 255))
    options = ImportOptions(name="mine", result=Hints(background="none", class_names=CLASSES), preparation=plain)
    import_file(file, options, frames()[:2], tmp_path / "models" / "mine", seconds=120)
    server = running(tmp_path / "models", precision="fp32")
    server.start()
    try:
        with Client(server.url) as client:
            (model,) = client.models()
            assert (model.name, [c.name for c in model.classes]) == ("mine", list(CLASSES))
            results = list(client.stream(frames(), model="mine", interval=INTERVAL, quality=100))
    finally:
        server.stop()
    assert [r.kind for r in results] == [("propagated", "key")[n % INTERVAL == 0] for n in range(FRAMES)]
    for number in range(0, FRAMES, INTERVAL):
        same = results[number].labels == labels_of_file(file, frames()[number])
        assert same.mean() > 0.98  # frames are sent as JPEG
    for number in range(1, FRAMES, INTERVAL):
        same = results[number].labels == labels_of_file(file, frames()[number])
        assert same.mean() > 0.7  # of propagation, which isn't exact
