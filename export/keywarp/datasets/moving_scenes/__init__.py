"""Moving Scenes: generated video with exact labels, boxes and motion."""

from keywarp.datasets.moving_scenes.clip import SceneClip
from keywarp.datasets.moving_scenes.dataset import MovingScenes, SceneImages
from keywarp.datasets.moving_scenes.object_classes import CLASSES
from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.datasets.moving_scenes.scene import MovingScene, SceneFrame, draw_scene

__all__ = [
    "CLASSES",
    "MovingScene",
    "MovingScenes",
    "SceneClip",
    "SceneFrame",
    "SceneImages",
    "SceneOptions",
    "draw_scene",
]
