"""FlowPyramid: a flow network that warps and matches coarse to fine, at the cost of FlowNet Inception.

FlowNet predicts a displacement from two stacked images, which takes millions of samples to learn. Here the search is
built in, as in PWC-Net ("PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume", Sun et al., 2018):
the features of the key frame are warped by the flow so far, and compared with those of the current frame in a window of
cells. What remains to be learned is to read a flow off these comparisons. The same layers do this at every level, as in
IRR ("Iterative Residual Refinement for Joint Optical Flow and Occlusion Estimation", Hur and Roth, 2019), because a
residual in cells looks alike at every level. So few samples go a long way.

The flow ends at the map's border, unlike that of FlowNet: beyond it the warp reads zeros. The paper's heads were
trained with them. To a head that wasn't, zeros may mean anything: to a cut behind a detector's last layer, every
class with a probability of a half.

Sizes below are in pixels of the full image (H, W); the network sees images of half that size. All sizes round up.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from keywarp.networks.feature_maps import FeatureMap
from keywarp.networks.flownet import (
    FLOW_STRIDE,
    FLOW_UNIT,
    INPUT_DOWNSCALE,
    PAPER_MAP,
    PIXEL_RANGE,
    FlowNetwork,
    FlowPrediction,
    conv,
    flow_layer,
    reduced,
    resampled,
    scale_layer,
)
from keywarp.networks.warp import sample, stay_inside

RADIUS = 4  # cells: the window of the comparison is 9 x 9
STEPS = (32, 16, 16, 8)  # strides of the steps, coarse to fine; the search reaches 4 * (32 + 16 + 16 + 8) pixels
CHANNELS = {2: 16, 4: 32, 8: 48, 16: 64}  # of the encoder's maps, by stride in half-size pixels
COMPARED = 32  # channels of the maps that are compared
HIDDEN = (64, 48, 48)  # channels of the estimator's layers
STATE = 32  # channels of its last layer, which it passes on to the next step


class Step(NamedTuple):
    """One step of the refinement."""

    stride: int  # of its maps, in full-size pixels
    before: Tensor  # (N, 2, h, w): the flow before, in cells of this stride
    scores: Tensor  # (N, window, h, w): how well each offset matches, as logits; see `correlate`
    flow: Tensor  # (N, 2, h, w): the flow after
    state: Tensor  # (N, state, h, w): what it passes on


class Estimator(nn.Module):
    """Reads the residual flow off the comparisons; shared by all steps."""

    offsets: Tensor  # (2, window, 1, 1): (dx, dy) of each place in the window

    def __init__(self, compared: int, hidden: tuple[int, int, int], state: int) -> None:
        super().__init__()
        window = (2 * RADIUS + 1) ** 2
        self.state = state
        self.layers = nn.Sequential(
            conv(window + compared + 2 + state, hidden[0], 1),
            conv(hidden[0], hidden[1], 3),
            conv(hidden[1], hidden[2], 3),
            conv(hidden[2], state, 3),
        )
        self.predict = flow_layer(state, 3)
        self.sharpness = nn.Parameter(torch.tensor(10.0))
        steps = torch.arange(-RADIUS, RADIUS + 1.0)
        offsets = torch.stack((steps.repeat(len(steps)), steps.repeat_interleave(len(steps))))
        self.register_buffer("offsets", offsets.view(2, window, 1, 1), persistent=False)

    def forward(self, stride: int, current: Tensor, key: Tensor, flow: Tensor, state: Tensor) -> Step:
        """Refine the flow once.

        Args:
            stride: The maps' stride.
            current: The current frame's map, (N, C, h, w).
            key: The key frame's map, of the same shape.
            flow: The flow so far, (N, 2, h, w), in cells of these maps.
            state: What the step before passed on, (N, state, h, w).
        """
        matches = correlate(current, sample(key, flow), RADIUS)
        kind = matches.dtype  # that of the comparisons in mixed precision; the flow itself needs all its bits
        state = self.layers(torch.cat((matches, current.to(kind), flow.to(kind), state.to(kind)), dim=1))
        residual, trust = self.predict(state).float().split((2, 1), dim=1)
        scores = matches.float() * self.sharpness
        matched = functional.conv2d(functional.softmax(scores, dim=1), self.offsets)
        return Step(stride, flow, scores, flow + residual + torch.sigmoid(trust) * matched, state)


class FlowPyramid(FlowNetwork):
    """A flow network of the cost of FlowNet Inception, or less."""

    def __init__(self, maps: Sequence[FeatureMap] = (PAPER_MAP,), share: float = 1.0) -> None:
        """Build the network with random weights.

        Args:
            maps: The feature maps that are warped.
            share: The fraction of the channels, below 1 for compact networks.

        Raises:
            ValueError: If there is no map, or a map's stride isn't even.
        """
        super().__init__(maps)
        w2, w4, w8, w16 = (reduced(channels, share) for channels in CHANNELS.values())
        compared, *hidden, state = (reduced(channels, share) for channels in (COMPARED, *HIDDEN, STATE))
        self.encoder = nn.ModuleList(
            (
                nn.Sequential(conv(3, w2, 5, 2), conv(w2, w4, 3, 2), conv(w4, w4, 3)),  # (N, 32, H/8, W/8)
                nn.Sequential(conv(w4, w8, 3, 2), conv(w8, w8, 3)),  # (N, 48, H/16, W/16)
                nn.Sequential(conv(w8, w16, 3, 2), conv(w16, w16, 3)),  # (N, 64, H/32, W/32)
            )
        )
        self.compared = nn.ModuleList(nn.Conv2d(w, compared, 1) for w in (w4, w8, w16))
        self.estimator = Estimator(compared, (hidden[0], hidden[1], hidden[2]), state)
        self.scales = nn.ModuleList(scale_layer(state, m.channels) for m in self.maps)

    def encode(self, image: Tensor) -> dict[int, Tensor]:
        """Return the maps of an image that are compared, by stride in full-size pixels."""
        x = image / PIXEL_RANGE
        maps = {}
        stride = FLOW_STRIDE
        for stage, compared in zip(self.encoder, self.compared, strict=True):
            x = stage(x)
            y = compared(x)
            maps[stride] = y * torch.rsqrt(y.square().mean(dim=1, keepdim=True) + 1e-2)
            stride *= 2
        return maps

    def forward_with_pyramid(self, current: Tensor, key: Tensor) -> tuple[FlowPrediction, list[Tensor]]:
        """Predict like `forward`, and also return the flow after every step, in units of `FLOW_UNIT`."""
        steps = self.steps(current, key)
        pyramid = [step.flow * (step.stride / INPUT_DOWNSCALE / FLOW_UNIT) for step in steps]
        last = torch.cat((steps[-1].flow, steps[-1].state), dim=1)
        tails = {stride: resampled(last, stride, current) for stride in {m.stride for m in self.maps}}
        scales = tuple(scale(tails[m.stride][:, 2:]) for m, scale in zip(self.maps, self.scales, strict=True))
        flow = stay_inside(tails[self.stride][:, :2] * (FLOW_STRIDE / self.stride))
        return FlowPrediction(flow, scales), pyramid

    def steps(self, current: Tensor, key: Tensor, *, apart: bool = False) -> list[Step]:
        """Refine the flow from no motion, coarse to fine.

        Args:
            current: The current frame, as for `forward`.
            key: The key frame, as for `forward`.
            apart: Whether to keep gradients from passing through the flow from a step to those before it, so that each
                learns to do its best by itself.
        """
        now, then = self.encode(current), self.encode(key)
        flow, state = self._start(now[STEPS[0]])
        steps: list[Step] = []
        for stride in STEPS:
            if steps and stride != steps[-1].stride:
                flow, state = _doubled(flow * 2, now[stride]), _doubled(state, now[stride])
            steps.append(self.estimator(stride, now[stride], then[stride], flow.detach() if apart else flow, state))
            flow, state = steps[-1].flow, steps[-1].state
        return steps

    def _start(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return no motion and an empty state, at the resolution of a map."""
        zero = torch.zeros_like(like[:, :1], dtype=torch.float32)
        return zero.expand(-1, 2, -1, -1), zero.expand(-1, self.estimator.state, -1, -1)


def correlate(current: Tensor, key: Tensor, radius: int) -> Tensor:
    """Compare each cell of one map with a window of cells of another.

    The products of a whole row with a whole row are one matrix product. Its diagonals are the window: in a matrix whose
    rows are read as if they were one cell longer, they become columns.

    Args:
        current: (N, C, H, W).
        key: (N, C, H, W).
        radius: The window has 2 `radius` + 1 rows and columns. Beyond the border there are zeros.

    Returns:
        (N, (2 `radius` + 1)^2, H, W): the mean over the channels of the products of `current` at p and `key` at
        p + (dx, dy), row by row of the window.
    """
    count, channels, height, width = current.shape
    span = 2 * radius + 1
    rows = _padded(current / channels, 3, 0, 1).permute(0, 2, 3, 1)  # one more, as the rows get longer
    padded = _padded(_padded(key, 2, radius, radius), 3, radius, radius).permute(0, 2, 1, 3)
    found = []
    for top in range(span):
        products = rows @ padded[:, top : top + height]  # (N, H, W + 1, W + 2 radius)
        flat = products.reshape(count, height, (width + 1) * (width + 2 * radius))[..., : width * (width + span)]
        found.append(flat.reshape(count, height, width, width + span)[..., :span])
    return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


def _padded(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Add zeros along an axis. The exporter warns about `functional.pad`."""
    zero = torch.zeros_like(x.narrow(axis, 0, 1))
    return torch.cat([zero] * before + [x] + [zero] * after, dim=axis)


def _doubled(x: Tensor, like: Tensor) -> Tensor:
    """Double the resolution, and crop to that of another map."""
    height, width = like.shape[-2:]
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
