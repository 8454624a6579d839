"""The flow networks by name."""

from collections.abc import Sequence
from typing import Protocol

from keywarp.networks.feature_maps import FeatureMap
from keywarp.networks.flow_pyramid import FlowPyramid
from keywarp.networks.flownet import FlowNet, FlowNetHalf, FlowNetInception, FlowNetwork


class FlowNetworkBuilder(Protocol):
    """A function that builds a flow network with random weights."""

    def __call__(self, maps: Sequence[FeatureMap] = ..., share: float = ...) -> FlowNetwork:
        """Build the network for some feature maps, with a fraction of the published channels."""
        ...


FLOW_NETWORKS: dict[str, FlowNetworkBuilder] = {
    "flownet": FlowNet,
    "flownet_half": FlowNetHalf,
    "flownet_inception": FlowNetInception,
    "flow_pyramid": FlowPyramid,
}
