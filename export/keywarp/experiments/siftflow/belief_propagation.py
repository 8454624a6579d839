"""Compiled belief propagation on SIFT-Flow's two layers (Liu et al. 2011, section 2).

Each pixel has two nodes: one in a layer of horizontal flows u and one in a layer of vertical flows v. The truncated L1
smoothness term connects neighbours within a layer, and the data term connects the two nodes of a pixel. A node has
2 w + 1 states, which are the flows from offset - w to offset + w. Each node has its own offset. Messages are costs
(min-sum).
"""

import numpy as np
from numpy.typing import NDArray

from keywarp.engines.jit import jit
from keywarp.experiments.siftflow.descriptors import CHANNELS

U, V = range(2)  # the layers
FROM_LEFT, FROM_RIGHT, FROM_ABOVE, FROM_BELOW, FROM_OTHER_LAYER = range(5)  # the senders of a node's messages
SENDERS = 5
LARGEST_COST = 255 * CHANNELS


@jit
def match_costs(
    current: NDArray[np.uint8], key: NDArray[np.uint8], offsets: NDArray[np.int32], window: int
) -> NDArray[np.float32]:
    """Return the data term before truncation, the L1 distances between descriptors.

    Args:
        current: The current image's descriptors, (H, W, C).
        key: The key image's descriptors, (H, W, C).
        offsets: The middle of each window (u, v) in pixels, (2, H, W).
        window: The window's half width w in pixels.

    Returns:
        The costs, (H, W, 2 w + 1, 2 w + 1), by pixel, v and u. They are infinite for matches outside of `key`.
    """
    height, width, channels = current.shape
    states = 2 * window + 1
    costs = np.empty((height, width, states, states), np.float32)
    for y in range(height):
        for x in range(width):
            for down in range(states):
                for right in range(states):
                    key_y = y + offsets[V, y, x] - window + down
                    key_x = x + offsets[U, y, x] - window + right
                    distance = np.int32(0)
                    if key_y < 0 or key_y >= height or key_x < 0 or key_x >= width:
                        costs[y, x, down, right] = np.inf
                    else:
                        for channel in range(channels):
                            distance += np.int32(
                                abs(np.int32(current[y, x, channel]) - np.int32(key[key_y, key_x, channel]))
                            )
                        costs[y, x, down, right] = distance
    return costs


@jit
def median_cost(costs: NDArray[np.float32]) -> int:
    """Return the median cost of the matches inside of the key image, or 0 if there are none.

    It is the threshold of the data term, as in the authors' code. Perfect matches are ignored. Otherwise flat areas,
    where every match is perfect, would outweigh the rest of the image.
    """
    counts = np.zeros(LARGEST_COST + 1, np.int64)
    for cost in costs.flat:
        if cost < np.inf:
            counts[int(cost)] += 1
    half = counts[1:].sum() / 2
    median, below = 0, 0
    while below < half:
        median += 1
        below += counts[median]
    return median


@jit
def sweep(
    messages: NDArray[np.float32],
    costs: NDArray[np.float32],
    offsets: NDArray[np.int32],
    layer: int,
    forward: bool,
    slope: np.float32,
    limit: np.float32,
    shrinkage: np.float32,
) -> None:
    """Send messages from each node of a layer, one after the other, to the neighbours ahead and to the other layer.

    Args:
        messages: The messages, (2, H, W, 5, 2 w + 1), by layer, receiving pixel, sender and state. Updated in place.
        costs: The data term, (H, W, 2 w + 1, 2 w + 1), by pixel, v and u.
        offsets: The middle of each window (u, v) in pixels, (2, H, W).
        layer: The layer that sends.
        forward: Whether to go in raster order, so that right and below are ahead, or in reverse order.
        slope: alpha, the cost of a difference of one pixel between neighbours.
        limit: d, the largest cost of a difference.
        shrinkage: eta, the cost of one pixel of flow.
    """
    _, height, width, _, states = messages.shape
    step = 1 if forward else -1
    # the directions from which the horizontal and the vertical neighbour receive this node's messages
    to_horizontal, to_vertical = (FROM_LEFT, FROM_ABOVE) if forward else (FROM_RIGHT, FROM_BELOW)
    # the directions from which this node receives theirs
    from_horizontal, from_vertical = (FROM_RIGHT, FROM_BELOW) if forward else (FROM_LEFT, FROM_ABOVE)
    belief, rest = np.empty(states, np.float32), np.empty(states, np.float32)
    for i in range(height):
        y = i if forward else height - 1 - i
        for j in range(width):
            x = j if forward else width - 1 - j
            received, offset = messages[layer, y, x], offsets[layer, y, x]
            _compute_belief(received, offset, shrinkage, belief)
            if 0 <= x + step < width:
                shift = offsets[layer, y, x + step] - offset
                message = messages[layer, y, x + step, to_horizontal]
                _smooth(belief, received[from_horizontal], shift, slope, limit, rest, message)
            if 0 <= y + step < height:
                shift = offsets[layer, y + step, x] - offset
                message = messages[layer, y + step, x, to_vertical]
                _smooth(belief, received[from_vertical], shift, slope, limit, rest, message)
            message = messages[1 - layer, y, x, FROM_OTHER_LAYER]
            _match(belief, received[FROM_OTHER_LAYER], costs[y, x], layer, rest, message)


@jit
def decide(messages: NDArray[np.float32], offsets: NDArray[np.int32], shrinkage: np.float32) -> NDArray[np.int32]:
    """Return the flow with the lowest cost at each node.

    Args:
        messages: The messages, (2, H, W, 5, 2 w + 1), by layer, receiving pixel, sender and state.
        offsets: The middle of each window (u, v) in pixels, (2, H, W).
        shrinkage: eta, the cost of one pixel of flow.

    Returns:
        The flow (u, v) in pixels, (2, H, W).
    """
    layers, height, width, _, states = messages.shape
    flow = np.empty((layers, height, width), np.int32)
    belief = np.empty(states, np.float32)
    for layer in range(layers):
        for y in range(height):
            for x in range(width):
                _compute_belief(messages[layer, y, x], offsets[layer, y, x], shrinkage, belief)
                flow[layer, y, x] = offsets[layer, y, x] - states // 2 + np.argmin(belief)
    return flow


@jit
def _compute_belief(
    received: NDArray[np.float32], offset: int, shrinkage: np.float32, belief: NDArray[np.float32]
) -> None:
    """Compute a node's belief: the displacement term plus all received messages."""
    states = belief.shape[0]
    for state in range(states):
        total = shrinkage * np.float32(abs(offset - states // 2 + state))
        for sender in range(SENDERS):
            total += received[sender, state]
        belief[state] = total


@jit
def _smooth(
    belief: NDArray[np.float32],
    back: NDArray[np.float32],
    shift: int,
    slope: np.float32,
    limit: np.float32,
    rest: NDArray[np.float32],
    message: NDArray[np.float32],
) -> None:
    """Compute the message to a neighbour, min over f of rest(f) + min(slope |f - f'|, limit) less its minimum, in O(L).

    `rest` is the belief without the message that the neighbour itself has sent `back`. The lower envelope of its cones
    is a distance transform, computed by a pass forward and a pass backward (Felzenszwalb and Huttenlocher 2006). State
    s of the neighbour, whose window is shifted by `shift`, is state s + shift here. Beyond the window's ends the
    envelope continues with the slope.
    """
    states = belief.shape[0]
    least = np.float32(np.inf)
    envelope = np.float32(np.inf)
    for state in range(states):
        cost = belief[state] - back[state]
        least = min(least, cost)
        envelope = min(cost, envelope + slope)
        rest[state] = envelope
    for state in range(states - 2, -1, -1):
        envelope = min(rest[state], envelope + slope)
        rest[state] = envelope
    for state in range(states):
        nearest = min(max(state + shift, 0), states - 1)
        message[state] = min(rest[nearest] + slope * np.float32(abs(state + shift - nearest)), least + limit)
    _normalise(message)


@jit
def _match(
    belief: NDArray[np.float32],
    back: NDArray[np.float32],
    costs: NDArray[np.float32],
    layer: int,
    rest: NDArray[np.float32],
    message: NDArray[np.float32],
) -> None:
    """Compute the message to the pixel's other node, min over f of rest(f) + data term, less its minimum."""
    states = belief.shape[0]
    for state in range(states):
        rest[state] = belief[state] - back[state]
        message[state] = np.inf
    for down in range(states):
        for right in range(states):
            if layer == U:
                message[down] = min(message[down], rest[right] + costs[down, right])
            else:
                message[right] = min(message[right], rest[down] + costs[down, right])
    _normalise(message)


@jit
def _normalise(message: NDArray[np.float32]) -> None:
    """Subtract the minimum, in place. Only differences count, and this keeps numbers small."""
    least = message[0]
    for state in range(1, message.shape[0]):
        least = min(least, message[state])
    for state in range(message.shape[0]):
        message[state] -= least
