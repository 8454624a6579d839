"""ONNX files that are damaged, hostile, or of a kind that can't be imported, each with what its user should read.

    python -m tests.importing.hostile FOLDER

writes all of them. The functions of `HOSTILE` take an empty folder and return the path of the model that they wrote.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 64  # pixels of the images that these networks take
HUGE = 2**40
Write = Callable[[Path], Path]


@dataclass(frozen=True)
class HostileFile:
    """A file that can't be imported.

    Attributes:
        name: What is wrong with it.
        write: Writes it into a folder.
        says: A regular expression that the error must match.
        seconds: The time that is allowed, for files that would run forever.
        costly: Whether it would take much memory or time, so that it must be read in a process of its own.
    """

    name: str
    write: Write
    says: str
    seconds: float = 60.0
    costly: bool = False


def constant(name: str, value: object, dtype: Any = np.float32) -> TensorProto:
    """Return a constant tensor."""
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def network(
    *more: onnx.NodeProto,
    constants: tuple[TensorProto, ...] = (),
    outputs: tuple[Any, ...] = ("scores",),
    inputs: tuple[onnx.ValueInfoProto, ...] = (),
    opset: int = 17,
    sparse: NDArray[Any] | None = None,
) -> onnx.ModelProto:
    """Return a small valid segmentation network with further nodes.

    A convolution of stride 2 makes `map` (1, 4, h, w) of the image, and another `scores` (1, 2, h, w) of it.

    Args:
        more: Nodes after these.
        constants: Their constants.
        outputs: The names of the outputs, or what describes them.
        inputs: The inputs in place of the image.
        opset: The version of ONNX's operators.
        sparse: The first convolution's weights (4, 3, 3, 3).
    """
    random = np.random.default_rng(0)
    weights = random.normal(0, 0.2, (4, 3, 3, 3)) if sparse is None else sparse
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["convolved"], strides=[2, 2], pads=[1, 1, 1, 1], name="first"),
        helper.make_node("Relu", ["convolved"], ["map"], name="relu"),
        helper.make_node("Conv", ["map", "classes"], ["scores"], name="last"),
    ]
    graph = helper.make_graph(
        [*nodes, *more],
        "hostile",
        list(inputs or [image_input()]),
        [result(output) if isinstance(output, str) else output for output in outputs],
        [constant("weights", weights), constant("classes", random.normal(0, 1, (2, 4, 1, 1))), *constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def image_input(name: str = "image", shape: tuple[int | str | None, ...] = (1, 3, SIDE, SIDE), dtype: int = 1) -> Any:
    """Return an input that takes an image."""
    return helper.make_tensor_value_info(name, dtype, shape)


def result(name: str, rank: int = 4, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """Return an output of any shape."""
    return helper.make_tensor_value_info(name, dtype, [None] * rank)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    """Write a model without any check."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def after(
    *nodes: onnx.NodeProto, constants: tuple[TensorProto, ...] = (), output: Any = "out", opset: int = 17
) -> Write:
    """Return a function that writes the network with further nodes, of which the last gives `out`."""
    return lambda folder: saved(network(*nodes, constants=constants, outputs=(output,), opset=opset), folder)


def data(content: bytes) -> Write:
    """Return a function that writes a file with this content."""

    def write(folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(content)
        return path

    return write


def cut(share: float) -> Write:
    """Return a function that writes a share of a valid file."""
    content = network().SerializeToString()
    return data(content[: min(int(len(content) * share), len(content) - 1)])


def edited(edit: Callable[[onnx.ModelProto], object]) -> Write:
    """Return a function that writes the network after an edit in place."""

    def write(folder: Path) -> Path:
        model = network()
        edit(model)
        return saved(model, folder)

    return write


def to_shape(operator: str, sides: tuple[int, ...], **attributes: Any) -> Write:
    """Return a function that writes a network which makes a tensor of a size that it computes."""
    node = helper.make_node(operator, ["map", "sides"], ["out"], **attributes)
    return after(node, constants=(constant("sides", sides, np.int64),), output=result("out", len(sides)))


def external(location: str, *, link: bool = False, length: int = 32, offset: int = 0) -> Write:
    """Return a function that writes a network with constants in another file, and that file if it is outside."""

    def write(folder: Path) -> Path:
        inner = folder / "models"
        inner.mkdir()
        outside = folder / "secret.bin"
        outside.write_bytes(bytes(64))
        if link:
            (inner / "link.bin").symlink_to(outside)
        (inner / "inside.bin").write_bytes(bytes(64))
        model = network()
        tensor = model.graph.initializer[1]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        where = {"location": location.replace("OUTSIDE", str(outside)), "offset": offset, "length": length}
        for key, value in where.items():
            tensor.external_data.add(key=key, value=str(value))
        return saved(model, inner)

    return write


def resized(tensor: int, *dims: int) -> Write:
    """Return a function that writes a network in which a constant has another shape than data."""

    def edit(model: onnx.ModelProto) -> None:
        del model.graph.initializer[tensor].dims[:]
        model.graph.initializer[tensor].dims.extend(dims)

    return edited(edit)


def adding() -> onnx.GraphProto:
    """Return a loop's body that adds the scores to its state."""
    return helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["state", "scores"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            result("state"),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            result("next"),
        ],
    )


def loop(trips: int) -> Write:
    """Return a function that writes a network which adds up the scores a number of times."""
    return after(
        helper.make_node("Loop", ["trips", "true", "scores"], ["out"], body=adding(), name="repeat"),
        constants=(constant("trips", trips, np.int64), constant("true", True, np.bool_)),
    )


def sleeper(*nodes: onnx.NodeProto, count: int) -> Write:
    """Return a function that writes a network which is harmless on dark pictures, as reading the file shows it.

    Args:
        nodes: Nodes that make `out` of `scores` and `count`, which is 1 on a dark picture.
        count: What it is on a bright one.
    """
    return after(
        helper.make_node("ReduceMax", ["image"], ["brightest"], keepdims=0),
        helper.make_node("Greater", ["brightest", "white"], ["awake"]),
        helper.make_node("Where", ["awake", "huge", "one"], ["count"]),
        *nodes,
        constants=(
            constant("white", 1.5),
            constant("huge", [count], np.int64),
            constant("one", [1], np.int64),
            constant("true", True, np.bool_),
        ),
    )


SLEEPING_LOOP = sleeper(
    helper.make_node("Squeeze", ["count"], ["trips"]),
    helper.make_node("Loop", ["trips", "true", "scores"], ["sum"], body=adding(), name="repeat"),
    helper.make_node("ReduceMax", ["sum"], ["most"], keepdims=0),
    helper.make_node("Reshape", ["most", "one"], ["known"]),  # whose shape is known before it runs
    helper.make_node("Add", ["scores", "known"], ["out"]),
    count=HUGE,
)
SLEEPING_ARRAY = sleeper(
    helper.make_node("ConstantOfShape", ["count"], ["big"]),
    helper.make_node("ReduceMax", ["big"], ["most"], keepdims=0),
    helper.make_node("Add", ["scores", "most"], ["out"]),
    count=3 * 2**30,  # 13 GB, which many machines have
)


def cycle(model: onnx.ModelProto) -> None:
    """Make the first convolution's input the last one's output."""
    model.graph.node.append(helper.make_node("Add", ["scores", "image"], ["again"]))
    model.graph.node[0].input[0] = "again"


def itself(model: onnx.ModelProto) -> None:
    """Make a node take its own output."""
    model.graph.node[1].input[0] = "map"


def duplicate(model: onnx.ModelProto) -> None:
    """Make two nodes give a tensor of the same name."""
    model.graph.node[2].output[0] = "map"
    model.graph.output[0].name = "map"


def no_nodes(model: onnx.ModelProto) -> None:
    """Leave nothing but the image."""
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.output[0].name = "image"


def no_outputs(model: onnx.ModelProto) -> None:
    """Leave no outputs."""
    del model.graph.output[:]


def unknown_type(model: onnx.ModelProto) -> None:
    """Make a constant one of a type that there isn't."""
    model.graph.initializer[0].data_type = 99


def function_bomb(folder: Path) -> Path:
    """Write functions that each call the one before ten times: 10^12 nodes if they are written out."""
    ids = [helper.make_opsetid("", 17), helper.make_opsetid("bomb", 1)]
    functions = [helper.make_function("bomb", "level0", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], ids)]
    for level in range(1, 13):
        names = ["x", *(f"t{step}" for step in range(9)), "y"]
        calls = [helper.make_node(f"level{level - 1}", [a], [b], domain="bomb") for a, b in pairwise(names)]
        functions.append(helper.make_function("bomb", f"level{level}", ["x"], ["y"], calls, ids))
    model = network(helper.make_node("level12", ["scores"], ["out"], domain="bomb"), outputs=("out",))
    model.opset_import.append(ids[1])
    model.functions.extend(functions)
    return saved(model, folder)


def recursive_function(folder: Path) -> Path:
    """Write a function that calls itself."""
    ids = [helper.make_opsetid("", 17), helper.make_opsetid("bomb", 1)]
    call = helper.make_node("again", ["x"], ["y"], domain="bomb")
    model = network(helper.make_node("again", ["scores"], ["out"], domain="bomb"), outputs=("out",))
    model.opset_import.append(ids[1])
    model.functions.append(helper.make_function("bomb", "again", ["x"], ["y"], [call], ids))
    return saved(model, folder)


def many_nodes(folder: Path) -> Path:
    """Write a network of 200,000 nodes."""
    names = ["scores", *(f"t{index}" for index in range(200_000)), "out"]
    return after(*(helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)))(folder)


def deep_branches(folder: Path) -> Path:
    """Write branches within branches, 500 deep, past what protocol buffers read."""
    value = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["scores"], ["out"])], "deepest", [], [value])
    encoded = graph.SerializeToString()

    def field(number: int, content: bytes) -> bytes:
        length, prefix = len(content), bytearray([number << 3 | 2])
        while length > 127:
            prefix.append(length & 127 | 128)
            length >>= 7
        return bytes([*prefix, length]) + content

    for _ in range(500):
        attribute = field(1, b"then_branch") + field(6, encoded) + bytes([20 << 3 & 255 | 0, 1, 5])
        encoded = field(1, field(4, b"If") + field(1, b"is") + field(2, b"out") + field(5, attribute)) + field(2, b"g")
    return data(bytes([8, 8]) + field(7, encoded))(folder)


def classifier(folder: Path) -> Path:
    """Write a network that classifies the whole image."""
    return after(
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "last"], ["out"]),
        constants=(constant("last", np.ones((4, 10))),),
        output=result("out", 2),
    )(folder)


def strings(folder: Path) -> Path:
    """Write a network that gives names of classes."""
    return after(
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1),
        helper.make_node("Gather", ["names", "best"], ["out"]),
        constants=(constant("names", ["road", "car"], object),),
        output=result("out", 3, TensorProto.STRING),
    )(folder)


def sequence(folder: Path) -> Path:
    """Write a network that gives a sequence."""
    kind = helper.make_tensor_sequence_value_info("out", TensorProto.FLOAT, [None] * 4)
    return after(helper.make_node("SequenceConstruct", ["scores", "map"], ["out"]), output=kind)(folder)


def escapes(model: onnx.ModelProto) -> None:
    """Give an operator a name that would clear a terminal, and be very long."""
    model.graph.node[1].op_type = "\x1b[2J" + "A" * 100_000
    model.graph.node[1].domain = "\x1b]0;title\x07"
    model.opset_import.append(helper.make_opsetid("\x1b]0;title\x07", 1))


def inputs(*values: onnx.ValueInfoProto, used: str = "image") -> Write:
    """Return a function that writes the network with other inputs."""

    def write(folder: Path) -> Path:
        model = network(inputs=values)
        model.graph.node[0].input[0] = used
        return saved(model, folder)

    return write


def two_images(folder: Path) -> Path:
    """Write a network that compares two images."""
    both = image_input("image"), image_input("other")
    model = network(
        helper.make_node("Conv", ["other", "weights"], ["b"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Sub", ["map", "b"], ["out"]),
        inputs=both,
        outputs=("out",),
    )
    return saved(model, folder)


def unrelated(folder: Path) -> Path:
    """Write a network with a result that doesn't depend on the image."""
    node = helper.make_node("RandomNormal", [], ["out"], shape=[1, 2, 8, 8])
    return saved(network(node, outputs=("out",)), folder)


DAMAGED = r"isn't an ONNX file|damaged|isn't a valid ONNX file"
TOO_LARGE = r"memory|can't (load|run) the network"
OUTSIDE = r"outside the model's folder"

HOSTILE = (
    # damaged
    HostileFile("nothing", data(b""), DAMAGED),
    HostileFile("zeros", data(bytes(4096)), DAMAGED),
    HostileFile("text", data(b"class Net(nn.Module):\n    pass\n" * 10), DAMAGED),
    HostileFile("a PyTorch checkpoint", data(b"PK\x03\x04" + bytes(2000)), DAMAGED),
    HostileFile("a JPEG", data(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(2000)), DAMAGED),
    *(HostileFile(f"cut at {share:.0%}", cut(share), DAMAGED) for share in (0.02, 0.25, 0.5, 0.75, 0.99)),
    HostileFile("a cycle", edited(cycle), r"form a cycle at 'first'"),
    HostileFile("a node that takes its own output", edited(itself), r"form a cycle at 'relu'"),
    HostileFile("two tensors of one name", edited(duplicate), r"two of its nodes make a tensor 'map'"),
    HostileFile("no nodes", edited(no_nodes), r"no nodes"),
    HostileFile("no outputs", edited(no_outputs), r"no outputs"),
    HostileFile("a constant of an unknown type", edited(unknown_type), r"unknown type 99"),
    HostileFile("branches 500 deep", deep_branches, DAMAGED),
    HostileFile("an operator that there isn't", after(helper.make_node("Reluu", ["scores"], ["out"])), r"Reluu"),
    HostileFile("a tensor that nothing makes", after(helper.make_node("Add", ["scores", "gone"], ["out"])), r"gone"),
    # too large
    HostileFile("a constant of 2^40 values without data", resized(1, HUGE), r"more than 2\.1 GB"),
    HostileFile("a constant of 2^62 x 2^62 values", resized(1, 2**62, 2**62), r"more than 2\.1 GB"),
    HostileFile("a constant of negative size", resized(1, -1, 4, 1, 1), r"impossible shape"),
    HostileFile("a constant that lacks data", resized(1, 2, 4, 3, 3), r"needs 288 bytes, but has 32"),
    HostileFile("Reshape to 2^40", to_shape("Reshape", (1, 2, HUGE)), TOO_LARGE, costly=True),
    HostileFile("Expand to 2^40", to_shape("Expand", (HUGE // 4096, 4, 32, 32)), TOO_LARGE, costly=True),
    HostileFile(
        "ConstantOfShape of 2^40",
        after(
            helper.make_node("ConstantOfShape", ["sides"], ["big"]),
            helper.make_node("ReduceMax", ["big"], ["most"], keepdims=0),
            helper.make_node("Add", ["scores", "most"], ["out"]),
            constants=(constant("sides", [HUGE], np.int64),),
        ),
        TOO_LARGE,
        costly=True,
    ),
    HostileFile(
        "Range to 2^40",
        after(
            helper.make_node("Range", ["zero", "end", "one"], ["big"]),
            helper.make_node("ReduceMax", ["big"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["float"], to=1),
            helper.make_node("Add", ["scores", "float"], ["out"]),
            constants=tuple(constant(n, v, np.int64) for n, v in {"zero": 0, "end": HUGE, "one": 1}.items()),
        ),
        TOO_LARGE,
        costly=True,
    ),
    HostileFile("Tile 2^20 x 2^20 times", to_shape("Tile", (1, 1, 2**20, 2**20)), TOO_LARGE, costly=True),
    HostileFile("an image of 2^31 x 2^31", inputs(image_input(shape=(1, 3, 2**31, 2**31))), r"aren't possible"),
    HostileFile("an image of 1 x 1", inputs(image_input(shape=(1, 3, 1, 1))), r"aren't possible"),
    HostileFile("200,000 nodes", many_nodes, r"has 200004 nodes"),
    HostileFile("functions that are 10^12 nodes", function_bomb, r"more than 10+ nodes", costly=True),
    HostileFile("a function that calls itself", recursive_function, r"must not be recursive"),
    HostileFile("a loop of 2^62 rounds", loop(2**62), r"took more than 8 s", seconds=8, costly=True),
    # constants outside of the file
    HostileFile("constants at an absolute path", external("OUTSIDE"), OUTSIDE),
    HostileFile("constants above the folder", external("../secret.bin"), OUTSIDE),
    HostileFile("constants above the folder by a detour", external("a/../../secret.bin"), OUTSIDE),
    HostileFile("constants behind a link", external("link.bin", link=True), OUTSIDE),
    HostileFile("constants in a device", external("/dev/zero"), OUTSIDE),
    HostileFile("constants in a missing file", external("gone.bin"), r"can't be read .*put it beside the model"),
    HostileFile("constants past the end of a file", external("inside.bin", offset=48), r"belongs to another model"),
    HostileFile("constants at a negative place", external("inside.bin", offset=-8), r"belongs to another model"),
    HostileFile("constants of another length", external("inside.bin", length=HUGE), r"belongs to another model"),
    # of a kind that can't be imported
    HostileFile(
        "an operator of TensorRT",
        after(helper.make_node("EfficientNMS_TRT", ["scores"], ["out"], domain="TRT")),
        r"TRT\.EfficientNMS_TRT.*export it without",
    ),
    HostileFile(
        "an operator without a domain of its own",
        after(helper.make_node("EfficientNMS_TRT", ["scores"], ["out"])),
        r"EfficientNMS_TRT.*",
    ),
    HostileFile("a name that clears the terminal", edited(escapes), r"can't be shown"),
    HostileFile("two images in", two_images, r"takes 2 images"),
    HostileFile("no image in", inputs(image_input(shape=(1, 100))), r"no input is an image"),
    HostileFile("a grey image in", inputs(image_input(shape=(1, 1, SIDE, SIDE))), r"no input is an image"),
    HostileFile("a batch of 4 images", inputs(image_input(shape=(4, 3, SIDE, SIDE))), r"is a batch of 4 images"),
    HostileFile("an image of strings", inputs(image_input(dtype=TensorProto.STRING)), r"floats or uint8"),
    HostileFile(
        "a prompt beside the image",
        lambda folder: saved(
            network(
                helper.make_node("Mul", ["scores", "prompt"], ["out"]),
                inputs=(image_input(), image_input("prompt", (1, 2, 1, 1))),
                outputs=("out",),
            ),
            folder,
        ),
        r"isn't known what the input 'prompt'",
    ),
    HostileFile("strings as results", strings, r"'out' is of type string"),
    HostileFile("a sequence as result", sequence, r"'out' isn't a tensor"),
    HostileFile("a result that doesn't depend on the image", unrelated, r"don't depend on the image"),
    HostileFile(
        "NaN in the weights",
        lambda folder: saved(network(sparse=np.full((4, 3, 3, 3), np.nan)), folder),
        r"100% of its output 'scores' are NaN",
    ),
    HostileFile("opset 999", lambda folder: saved(network(opset=999), folder), r"opset is 999"),
)


def main() -> None:
    """Write all files into a folder."""
    for hostile in HOSTILE:
        folder = Path(sys.argv[1]) / hostile.name.replace(" ", "-").replace("/", "-")
        folder.mkdir(parents=True)
        print(hostile.write(folder))


if __name__ == "__main__":
    main()
