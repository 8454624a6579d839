import torch

from keywarp.datasets.moving_scenes import MovingScenes, SceneOptions
from keywarp.experiments.motion import ExactMotion
from keywarp.training.evaluation import Pairs, Propagation, copy_features, to_tensor
from tests.datasets.synthetic import textured
from tests.training.tiny import networks

AGES = (0, 3, 9)
SCENES = MovingScenes([textured(200, 300, seed) for seed in range(4)], SceneOptions(height=192, width=288), size=8)


def test_exact_motion_leads_pictures_to_where_they_are_now() -> None:
    network = networks()
    ways: tuple[Propagation, ...] = (ExactMotion(SCENES), copy_features)
    errors = torch.zeros(len(ways), len(AGES))
    for number in range(len(SCENES)):
        scene = SCENES.scene(number)
        frames = [scene.image(-age) for age in AGES]
        cells = torch.nn.functional.avg_pool2d(to_tensor(frames), network.flow.stride)  # pictures as feature maps
        for row, way in zip(errors, ways, strict=True):
            [moved] = way(network, (cells,), Pairs(SCENES.name(number), frames[0], frames, AGES))
            inside = (moved - cells[:1])[:, :, 3:-3, 3:-3]
            row += inside.abs().mean(dim=(1, 2, 3)) / len(SCENES)
    moved, copied = errors
    assert moved[0] == copied[0] == 0  # the frame itself
    assert moved[1] < copied[1]
    assert moved[2] < 0.85 * copied[2]  # cells of 16 pixels can't be moved without blur
