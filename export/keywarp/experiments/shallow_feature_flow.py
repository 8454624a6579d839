"""Shallow feature flow (SFF in Table 3): features are warped along an optical flow that isn't learned."""

import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from keywarp.datasets import Image
from keywarp.engines.motion import OpticalFlow, to_cells
from keywarp.networks import DeepFeatureFlow
from keywarp.networks.flownet import INPUT_DOWNSCALE
from keywarp.training.evaluation import Features, Pairs

SAVE_EVERY = 60.0  # seconds between two saves; estimating one flow may take some seconds


class ShallowFeatureFlow:
    """A propagation along an optical flow, with a scale field of 1.

    Flows don't depend on the networks, so they are kept in a file and used again.
    """

    def __init__(self, source: OpticalFlow, file: Path, save_every: float = SAVE_EVERY) -> None:
        """Load the flows that the file holds.

        Args:
            source: The optical flow to propagate along.
            file: The file that keeps the flows; it may not exist yet.
            save_every: Seconds between two saves.
        """
        self._source = source
        self._file = file
        self._save_every = save_every
        self._flows: dict[str, NDArray[np.float32]] = {}
        if file.exists():
            with np.load(file) as content:
                self._flows = {key: content[key] for key in content.files}
        self._kept, self._saved = len(self._flows), time.monotonic()

    def __call__(self, network: DeepFeatureFlow[Any], features: Features, pairs: Pairs) -> Features:
        """Warp the key features; see `Propagation`."""
        return warp_along([self.flow(network, pairs.current, key) for key in pairs.keys[1:]], network, features)

    def flow(self, network: DeepFeatureFlow[Any], current: Image, key: Image) -> NDArray[np.float32]:
        """Return the flow (1, 2, H, W) from the current frame to a key frame, in cells of the feature maps."""
        name = blake2b(current.tobytes() + key.tobytes(), digest_size=16).hexdigest()
        if name not in self._flows:
            flow = self._source.estimate(_half(current), _half(key))
            self._flows[name] = to_cells(flow, network.flow.stride // INPUT_DOWNSCALE)
            if time.monotonic() - self._saved > self._save_every:
                self.save()
        return self._flows[name]

    def save(self) -> None:
        """Write the flows to the file. An interrupted write leaves the older file as it was."""
        if len(self._flows) == self._kept:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial.npz")
        np.savez(partial, **self._flows)  # type: ignore[arg-type]
        partial.replace(self._file)
        self._kept, self._saved = len(self._flows), time.monotonic()


def warp_along(flows: Sequence[NDArray[np.float32]], network: DeepFeatureFlow[Any], features: Features) -> Features:
    """Warp key features along flows, with a scale field of 1.

    Args:
        flows: The flow (1, 2, H, W) to each key frame but the first, in cells. The first is the current frame itself.
        network: The networks.
        features: The key frames' features, per map (l, C, H, W).

    Returns:
        The current frame's features, one for each key frame.
    """
    if not flows:
        return features
    flow = torch.from_numpy(np.concatenate(flows)).to(features[0].device)
    scales = tuple(torch.ones((), device=x.device).expand_as(x[1:]) for x in features)
    warped = network.warp(tuple(x[1:] for x in features), flow, scales)
    return tuple(torch.cat((x[:1], w)) for x, w in zip(features, warped, strict=True))


def _half(image: Image) -> Image:
    """Halve an image as the engine does for a flow network."""
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    size = (padded.shape[1] // 2, padded.shape[0] // 2)
    return np.asarray(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), np.uint8)
