"""Describe a model's keypoints for clients."""

from keywarp.engines.manifest import DenseDetection, Manifest
from keywarp.protocol import KeypointsInfo


def keypoints_info(manifest: Manifest) -> KeypointsInfo | None:
    """Return the keypoints of a model's objects for clients, or None if they have none."""
    if not isinstance(manifest.detection, DenseDetection) or manifest.detection.keypoints is None:
        return None
    keypoints = manifest.detection.keypoints
    return KeypointsInfo(names=keypoints.names, skeleton=keypoints.skeleton)
