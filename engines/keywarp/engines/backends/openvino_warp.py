"""Warp maps in OpenVINO by gathering rows of channels, which is several times as fast as sampling each channel."""

import numpy as np
import openvino as ov
from openvino import Type, opset3
from openvino import opset13 as ops


def gather_rows(network: ov.Model) -> list[ov.Output]:
    """Replace each GridSample by a weighted sum of the rows of four cells, in place.

    OpenVINO's GridSample goes through the map channel by channel, and computes with places again for each. A row holds
    all channels of a cell: its place and weights are computed once, and memory is read in one go. Maps whose channels
    come last need no copy for that.

    Args:
        network: The network, with static shapes. Samples that aren't bilinear, with aligned corners, zeros outside and
            batch 1 stay as they are.

    Returns:
        The tensors with places and weights, which must be computed in fp32: those that `GridSample` takes, too, where
        it stays.
    """
    exact: list[ov.Output] = []
    for node in network.get_ordered_ops():
        if node.get_type_name() != "GridSample":
            continue
        if not _can_gather(node):
            exact.append(node.input_value(1))
            continue
        warped, places, weights = _gathered(node.input_value(0), node.input_value(1))
        warped.node.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(warped)
        for tensor, name in ((places, "places"), (weights, "weights")):  # names for the cache, which must not count on
            tensor.get_tensor().set_names({f"{node.get_friendly_name()}/{name}"})
        exact += [places, weights]
    return exact


def _can_gather(node: ov.Node) -> bool:
    attributes = node.get_attributes()
    wanted = {"align_corners": True, "mode": "bilinear", "padding_mode": "zeros"}
    shape = node.get_input_partial_shape(0)
    return (
        all(str(attributes[name]).lower() == str(value).lower() for name, value in wanted.items())
        and shape.is_static
        and node.get_output_partial_shape(0).is_static
        and shape[0].get_length() == 1
    )


def _gathered(data: ov.Output, grid: ov.Output) -> tuple[ov.Output, ov.Output, ov.Output]:
    """Return a map sampled on a grid, and the places and weights of the four cells around each of its points."""
    _, channels, height, width = data.get_shape()
    _, rows, columns, _ = grid.get_shape()
    x_cells, x_weights = _neighbours(grid, 0, width)
    y_cells, y_weights = _neighbours(grid, 1, height)
    points = np.array([rows * columns, 1])
    places, weights = [], []
    for y_cell, y_weight in zip(y_cells, y_weights, strict=True):
        for x_cell, x_weight in zip(x_cells, x_weights, strict=True):
            place = ops.add(ops.multiply(y_cell, np.float32(width)), x_cell)
            places.append(ops.reshape(place, points, special_zero=False))
            weights.append(ops.reshape(ops.multiply(y_weight, x_weight), points, special_zero=False))
    place = ops.convert(ops.concat(places, 1), Type.i32)
    weight = ops.concat(weights, 1)
    gathered = opset3.embedding_bag_packed_sum(_rows(data), place, weight)
    shaped = ops.reshape(gathered, [1, rows, columns, channels], special_zero=False)
    return ops.transpose(shaped, [0, 3, 1, 2]).output(0), place.output(0), weight.output(0)


def _rows(data: ov.Output) -> ov.Output:
    """Return a map (1, c, h, w) as rows (h w, c): what it was made of, if that is them.

    An input of the network is then read as it is. In bf16 it would be converted, and converted back, if anything stood
    between.
    """
    _, channels, height, width = data.get_shape()
    shaped = _passed(data).get_node()
    if shaped.get_type_name() == "Reshape":
        turned = _passed(shaped.input_value(0)).get_node()
        if turned.get_type_name() == "Transpose":
            source = turned.input_value(0)
            if list(source.get_shape()) == [height * width, channels]:
                return source
    turned = ops.transpose(data, [0, 2, 3, 1])
    return ops.reshape(turned, [height * width, channels], special_zero=False).output(0)


def _passed(tensor: ov.Output) -> ov.Output:
    """Return what nodes that change nothing pass on."""
    while tensor.get_node().get_type_name() == "Identity":
        tensor = tensor.get_node().input_value(0)
    return tensor


def _neighbours(grid: ov.Output, axis: int, cells: int) -> tuple[list[ov.Node], list[ov.Node]]:
    """Return the two cells around each point along one axis, and their weights: 0 for cells outside of the map."""
    coordinate = ops.gather(grid, np.int64(axis), np.int64(3))  # -1 is the centre of the first cell, 1 of the last
    position = ops.multiply(ops.add(coordinate, np.float32(1)), np.float32((cells - 1) / 2))
    before = ops.floor(position)
    beyond = ops.subtract(position, before)
    found, weights = [], []
    for step, weight in ((0, ops.subtract(np.float32(1), beyond)), (1, beyond)):
        cell = ops.add(before, np.float32(step))
        kept = ops.clamp(cell, 0, cells - 1)
        inside = ops.convert(ops.equal(cell, kept), Type.f32)
        found.append(kept)
        weights.append(ops.multiply(weight, inside))
    return found, weights
