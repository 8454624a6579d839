"""A real bundle of four tiny networks, made without torch, for tests that need a bundle but no export.

There are three classes, which differ by colour. The features are the mean colour of each 16x16 cell, and the head
scores class 0 by darkness, class 1 by red and class 2 by green, so a test knows what a frame's labels must be. The flow
is constant.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from keywarp.engines.bundle import Bundle, write_bundle

HEADER = '<ir_version: 8, opset_import: ["": 17]>\n'

FEATURES = """
features_net (float[N,3,H,W] image) => (float[N,3,h,w] features)
{ features = AveragePool <kernel_shape=[16,16], strides=[16,16], ceil_mode=1> (image) }
"""

# The same, and the mean colour of the whole frame, which is held.
HOLDING_FEATURES = """
features_net (float[N,3,H,W] image) => (float[N,3,h,w] features, float[N,3,1,1] held)
{
  features = AveragePool <kernel_shape=[16,16], strides=[16,16], ceil_mode=1> (image)
  held = GlobalAveragePool (image)
}
"""

FLOW = """
flow_net (float[N,3,H,W] current, float[N,3,H,W] key) => (float[N,2,h,w] flow, float[N,3,h,w] scale)
{
  pair = Concat <axis=1> (current, key)
  cells = AveragePool <kernel_shape=[8,8], strides=[8,8], ceil_mode=1> (pair)
  flow = Conv (cells, flow_weight, flow_bias)
  scale = Conv (cells, scale_weight, scale_bias)
}
"""

# The same on images of a third of the frame's size, whose pixels don't fall into cells of 16 pixels of the frame.
FLOW_OF_THIRDS = """
flow_net (float[N,3,H,W] current, float[N,3,H,W] key) => (float[N,2,h,w] flow, float[N,3,h,w] scale)
<int64[4] enlarged = {1, 1, 3, 3}>
{
  pair = Concat <axis=1> (current, key)
  large = AveragePool <kernel_shape=[16,16], strides=[16,16]> (pair)
  factors = Cast <to=1> (enlarged)
  cells = Resize <mode="nearest"> (large, , factors)
  flow = Conv (cells, flow_weight, flow_bias)
  scale = Conv (cells, scale_weight, scale_bias)
}
"""

WARP = """
warp (float[N,C,H,W] features, float[N,2,H,W] flow, float[N,C,H,W] scale) => (float[N,C,H,W] warped)
<int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 three = {3}, int64[1] axis1 = {1}, int64[1] axis3 = {3},
 float half = {0.5}, float unit = {1.0}, int64[2] row = {1, -1}, int64[2] column = {-1, 1}>
{
  shape = Shape (flow)
  height = Gather (shape, two)
  width = Gather (shape, three)
  dx = Gather <axis=1> (flow, zero)
  dy = Gather <axis=1> (flow, one)
  xs = Range (zero, width, one)
  ys = Range (zero, height, one)
  xs_row = Reshape (xs, row)
  ys_column = Reshape (ys, column)
  xs_float = Cast <to=1> (xs_row)
  ys_float = Cast <to=1> (ys_column)
  x = Add (dx, xs_float)
  y = Add (dy, ys_float)
  width_float = Cast <to=1> (width)
  height_float = Cast <to=1> (height)
  last_x = Sub (width_float, unit)
  last_y = Sub (height_float, unit)
  centre_x = Mul (last_x, half)
  centre_y = Mul (last_y, half)
  ratio_x = Div (x, centre_x)
  ratio_y = Div (y, centre_y)
  grid_x = Sub (ratio_x, unit)
  grid_y = Sub (ratio_y, unit)
  plane_x = Unsqueeze (grid_x, axis3)
  plane_y = Unsqueeze (grid_y, axis3)
  grid = Concat <axis=3> (plane_x, plane_y)
  sampled = GridSample <align_corners=1, mode="bilinear", padding_mode="zeros"> (features, grid)
  warped = Mul (sampled, scale)
}
"""

HEAD = """
head (float[N,3,H,W] features) => (float[N,3,H,W] scores)
{
  logits = Conv (features, head_weight, head_bias)
  scores = Softmax <axis=1> (logits)
}
"""

HOLDING_HEAD = """
head (float[N,3,H,W] features, float[N,3,1,1] held) => (float[N,3,H,W] scores)
{
  sum = Add (features, held)
  logits = Conv (sum, head_weight, head_bias)
  scores = Softmax <axis=1> (logits)
}
"""

# Every cell is a box, one pixel larger on each side, and scored as the segmentation head scores it.
DENSE_HEAD = """
head (float[N,3,H,W] features) => (float[N,n,4] boxes, float[N,n,3] scores)
<int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 three = {3}, int64[3] flat = {0, 3, -1},
 int64[2] column = {-1, 1}, int64[3] rows = {1, -1, 4}, float stride = {16.0}, float[4] size = {-1.0, -1.0, 17.0, 17.0}>
{
  logits = Conv (features, head_weight, head_bias)
  lists = Reshape (logits, flat)
  classes = Transpose <perm=[0, 2, 1]> (lists)
  scores = Softmax <axis=2> (classes)
  shape = Shape (features)
  height = Gather (shape, two)
  width = Gather (shape, three)
  xs = Range (zero, width, one)
  ys = Range (zero, height, one)
  ys_column = Reshape (ys, column)
  zero_xs = Mul (xs, zero)
  zero_ys = Mul (ys_column, zero)
  x = Add (xs, zero_ys)
  y = Add (ys_column, zero_xs)
  x_list = Reshape (x, column)
  y_list = Reshape (y, column)
  cells = Concat <axis=1> (x_list, y_list, x_list, y_list)
  cells_float = Cast <to=1> (cells)
  corners = Mul (cells_float, stride)
  box_list = Add (corners, size)
  boxes = Reshape (box_list, rows)
}
"""

# The same with masks, which lack a quarter at the bottom right of the box, and two keypoints: the cell's corner and the
# middle of its lower edge, which is half as certain.
INSTANCES_HEAD = (
    DENSE_HEAD.replace("float[N,n,3] scores)", "float[N,n,3] scores, float[N,n,2,2] masks, float[N,n,2,3] keypoints)")
    .replace(
        "boxes = Reshape (box_list, rows)",
        """boxes = Reshape (box_list, rows)
  nothing = MatMul (box_list, mask_matrix)
  mask_cells = Add (nothing, mask_offset)
  masks = Reshape (mask_cells, mask_shape)
  places = MatMul (box_list, point_matrix)
  points = Add (places, point_offset)
  keypoints = Reshape (points, point_shape)""",
    )
    .replace(
        "int64[3] rows", "int64[4] mask_shape = {1, -1, 2, 2}, int64[4] point_shape = {1, -1, 2, 3}, int64[3] rows"
    )
)
INSTANCES_WEIGHTS = {
    "mask_matrix": np.zeros((4, 4)),
    "mask_offset": np.array([0.5, 0.5, 0.5, -0.5]),
    "point_matrix": np.array([[1, 0, 0, 0.5, 0, 0], [0, 1, 0, 0, 0, 0], [0, 0, 0, 0.5, 0, 0], [0, 0, 0, 0, 1, 0]]),
    "point_offset": np.array([1, 1, 1, 0, -1, 0.5]),
}
KEYPOINTS = {"names": ("corner", "foot"), "skeleton": ((0, 1),)}

# The value of a cell is how red it is, minus the mean.
VALUES_HEAD = """
head (float[N,3,H,W] features) => (float[N,1,H,W] values)
{ values = Conv (features, head_weight, head_bias) }
"""

# Rows are classes, columns are R, G and B of a cell without the mean.
HEAD_WEIGHT = np.array([[-1, -1, 0], [2, -1, 0], [-1, 2, 0]], np.float32).reshape(3, 3, 1, 1) / 32


def graph_of(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(HEADER + text)
    model.graph.initializer.extend(numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items())
    onnx.checker.check_model(model)
    return model


def tiny_bundle(
    path: Path,
    *,
    name: str = "tiny",
    version: str = "1.0.0",
    flow: tuple[float, float] = (0.0, 0.0),
    motion_gain: float = 0.0,
    scale: float = 1.0,
    multiple: int = 16,
    short_side: int = 64,
    long_side: int = 1024,
    key_interval: int = 10,
    detection: bool = False,
    instances: bool = False,
    thirds: bool = False,
    image: Mapping[str, object] | None = None,
    flow_network: bool = True,
    background: bool = True,
    held: bool = False,
    dense: bool | Mapping[str, object] = False,
    **fields: object,
) -> Bundle:
    """Write the tiny bundle to `path`.

    With `detection`, every cell that is red or green is detected as an object; with `instances`, it has a mask and two
    keypoints, too. The motion in cells (dx, dy) is `flow`;
    `motion_gain` times (red of current - 2 green of key) is added to dx. The scale field is `scale` everywhere. With
    `thirds`, the flow network sees images of a third of the input's size, which must be a multiple of 48. `image`
    replaces how frames are fitted. With `held`, the features hold the mean of the whole key frame, which the
    segmentation head adds to the scores of every cell. With `dense`, the result is the red of each cell minus 100, and
    a mapping replaces settings of the map. `fields` are further fields of the manifest.
    """
    detection = detection or instances
    settings: dict[str, object] = {"kind": "dense", "threshold": 0.6, "iou": 0.5}
    if instances:
        settings |= {"masks": "box", "keypoints": KEYPOINTS}
    head = HOLDING_HEAD if held else HEAD
    if detection:
        head = INSTANCES_HEAD if instances else DENSE_HEAD
    flow_weight = np.zeros((2, 6, 1, 1))
    flow_weight[0, 0], flow_weight[0, 4] = motion_gain, -2 * motion_gain
    graphs = {
        "features.onnx": graph_of(HOLDING_FEATURES if held else FEATURES),
        "flow.onnx": graph_of(
            FLOW_OF_THIRDS if thirds else FLOW,
            flow_weight=flow_weight,
            flow_bias=np.array(flow),
            scale_weight=np.zeros((3, 6, 1, 1)),
            scale_bias=np.full(3, scale),
        ),
        "warp.onnx": graph_of(WARP),
        "head.onnx": graph_of(
            head,
            head_weight=HEAD_WEIGHT,
            head_bias=np.zeros(3),
            **(INSTANCES_WEIGHTS if instances else {}),
        ),
    }
    if dense:
        graphs["head.onnx"] = graph_of(VALUES_HEAD, head_weight=np.eye(1, 3)[..., None, None], head_bias=np.zeros(1))
        changed = {} if dense is True else dense
        fields = {"dense": {"stride": 16, "quantity": "redness", "unit": "steps", **changed}, **fields}
    if not flow_network:
        del graphs["flow.onnx"]
    size = {"short_side": short_side, "long_side": long_side, "multiple": multiple}
    return write_bundle(
        path,
        graphs,
        name=name,
        version=version,
        task="detection" if detection else "dense" if dense else "segmentation",
        detection=settings if detection else None,
        classes=[]
        if dense
        else [
            {"id": 0, "name": "background", "color": (0, 0, 0)},
            {"id": 1, "name": "red", "color": (255, 0, 0)},
            {"id": 2, "name": "green", "color": (0, 255, 0)},
        ],
        image={**(size if image is None else image), "mean": (100.0, 100.0, 100.0)},
        flow={"downscale": 3 if thirds else 2},
        features=[{"name": "features", "stride": 16, "channels": 3}],
        key_interval=key_interval,
        opset=17,
        license="Apache-2.0",
        **({} if background else {"background": False}),
        **({"held": [{"name": "held", "shape": (1, 3, 1, 1)}]} if held else {}),
        **fields,
    )
