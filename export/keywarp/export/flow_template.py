"""The part of the pre-trained flow network that doesn't depend on feature maps, as a graph for `keywarp.importing`.

`make flow-graph` (`python -m keywarp.export.flow_template`) writes the file anew from the weights that come with
Keywarp.
"""

import onnx
import torch
from torch import Tensor, nn

from keywarp.export.graphs import Graph, round_weights, to_onnx
from keywarp.importing.motion_graphs import NATIVE_FLOW, NATIVE_STRIDE, SHIPPED, STATE
from keywarp.networks import FeatureMap, pretrained_flow
from keywarp.networks.flow_pyramid import FlowPyramid


class LastStep(nn.Module):
    """The flow and the state after the last step of a `FlowPyramid`."""

    def __init__(self, flow: FlowPyramid) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, current: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the flow in cells of `NATIVE_STRIDE`, and the state that scale fields are made from."""
        last = self.flow.steps(current, key)[-1]
        return last.flow, last.state


def flow_template() -> onnx.ModelProto:
    """Return the graph `current`, `key` -> `native_flow`, `state` of the weights that come with Keywarp."""
    network = LastStep(pretrained_flow([FeatureMap(1, NATIVE_STRIDE)]))
    round_weights(network)
    example = (torch.zeros(1, 3, 64, 96), torch.zeros(1, 3, 64, 96))
    return to_onnx(Graph("flow_pyramid.onnx", network, ("current", "key"), (NATIVE_FLOW, STATE), example))


if __name__ == "__main__":
    onnx.save(flow_template(), SHIPPED)
    print(SHIPPED)
