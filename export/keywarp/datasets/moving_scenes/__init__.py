"""Moving Scenes: generated video of which everything is known exactly."""

from keywarp.datasets.moving_scenes.clip import SceneClip
from keywarp.datasets.moving_scenes.kinds import CLASSES
from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.datasets.moving_scenes.scene import Frame, Scene, draw_scene
from keywarp.datasets.moving_scenes.scenes import MovingScenes, SceneFrames

__all__ = ["CLASSES", "Frame", "MovingScenes", "Scene", "SceneClip", "SceneFrames", "SceneOptions", "draw_scene"]
