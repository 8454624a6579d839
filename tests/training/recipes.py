"""Recipes for trainings on the moving square that take seconds."""

from pathlib import Path

from tests.datasets.synthetic import moving_square, write_frames
from tests.datasets.test_clips import write_video

# The crops are wider than 64 pixels, so that every map that the flow network halves is at least two cells wide. For a
# map one cell wide, oneDNN's bf16 kernel (`jit_bf16`) leaves parts of the weight gradient uninitialised, and the loss
# of the second step is often NaN.
HEAD = """
name = "square"
version = "0.1.0"
license = "Apache-2.0"
key_interval = 4
seed = 0

[image]
short_side = 64
long_side = 96

[network]
blocks = [1, 1, 1, 0]
channels = 8
width = 0.25
flow = "flownet_inception"
flow_share = 0.25

[joint]
steps = 2
batch = 2
features_rate = 1e-3
flow_rate = 1e-3
new_rate = 1e-2
crop = { height = 48, width = 80 }
optimization = { algorithm = "sgd", warm_up = 0 }
"""

FEATURES = """
[features]
steps = 3
batch = 2
rate = 1e-3
crop = { height = 48, width = 64 }
"""

VIDEOS = """
[data]
kind = "videos"
train = "train"
evaluate = "held-out"
classes = [["square", [255, 255, 255]]]
"""

TAUGHT = """
[data]
kind = "taught"
classes = [
    { name = "background", color = [0, 0, 0] },
    { name = "square", color = [255, 255, 255], categories = [1], accept = 0.4 },
]

[data.teacher]
threshold = 0.2
model = { ecosystem = "npm", package = "none@1.0", member = "none", sha256 = "SHA" }

[[data.clips]]
name = "square"
source = "v.mp4"
grids = [[1, 1]]
holdout = 0.5

[flow]
source = { kind = "clips", made_share = 0.5 }
steps = 2
batch = 2
rate = 1e-4
crop = { height = 32, width = 32, zoom = [0.5, 0.5] }
""".replace("SHA", "0" * 64)


def write_recipe(folder: Path, *parts: str, name: str = "square.toml") -> Path:
    """Write a recipe, and the data that it refers to if they are missing. Its paths are relative to the folder."""
    path = folder / name
    path.write_text("".join((HEAD, *parts)))
    if TAUGHT in parts:
        write_video(folder / "v.mp4", moving_square(frames=12).clip.frames)
    if VIDEOS in parts and not (folder / "train").exists():
        write_frames(folder / "train", moving_square(frames=12), range(6, 12))
        write_frames(folder / "held-out", moving_square(frames=6, step=3), range(2, 6, 3))
    return path
