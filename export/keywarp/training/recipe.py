"""A recipe: one TOML file with the data, the networks and the training of a model.

Each class is one table of the file, and each field one key.
"""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from keywarp.choices import Task, Variant, WeightsLayout
from keywarp.datasets import Augmentation, PackageFile
from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.networks import FLOW_NETWORKS, NetworkOptions
from keywarp.networks.regions import RegionOptions
from keywarp.networks.resnet import StrideOn
from keywarp.training.detection import DetectionLossOptions
from keywarp.training.errors import RecipeError

Tables = TypeVar("Tables", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Color = tuple[int, int, int]  # RGB
SCENES = SceneOptions()
PAPER = NetworkOptions(classes=2)
NETWORK_FIELDS = {field.name for field in fields(NetworkOptions)}


def _check_hash(file: PackageFile) -> PackageFile:
    if not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, not {file.sha256!r}")
    return file


FileInPackage = Annotated[PackageFile, AfterValidator(_check_hash)]


class RecipeTable(BaseModel):
    """A table of a recipe. It is immutable, and a key that it doesn't know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageRecipe(RecipeTable):
    """The size that frames are resized to, in training and in the bundle."""

    short_side: int = Field(ge=16)  # pixels
    long_side: int = Field(ge=16)  # pixels, at most
    multiple: int = Field(default=1, ge=1)  # the sides are multiples of this many pixels


# --- data


class ClassRecipe(RecipeTable):
    """A class of the task, and how the teacher's boxes of it become pixel labels."""

    name: str
    color: Color
    categories: tuple[int, ...] = ()  # the teacher's category numbers; empty for the background
    power: Positive = 2.5  # exponent of the super-ellipse that probably holds the object
    core: tuple[float, float] | None = None  # half axes of the ellipse that certainly is object; None keeps the box
    accept: Fraction = 0.2  # lowest mean score over neighbouring frames for a pixel to get the class


class TeacherRecipe(RecipeTable):
    """The detector that labels the clips."""

    model: FileInPackage
    threshold: Fraction  # lowest score of a detection that counts


class ClipRecipe(RecipeTable):
    """A video clip to label and train on."""

    name: str
    source: FileInPackage | Path
    cuts: tuple[int, ...] = ()  # indices of the frames that start a new shot
    grids: tuple[tuple[int, int], ...]  # columns and rows of each tiling in which the teacher sees a frame
    weight: Positive = 1.0  # relative frequency of its samples
    holdout: Fraction = 0.0  # share of the frames, at the end, that are kept from training


class PseudoLabelledClips(RecipeTable):
    """Clips with pseudo-labels of a detector, the teacher; for segmentation."""

    kind: Literal["taught"]
    classes: tuple[ClassRecipe, ...] = Field(min_length=2)
    teacher: TeacherRecipe
    clips: tuple[ClipRecipe, ...] = Field(min_length=1)


class MovingScenesData(RecipeTable):
    """Generated video with exact labels; for both tasks."""

    kind: Literal["moving_scenes"]
    scenes: int = Field(default=300, ge=1)  # number of scenes for evaluation; training never repeats a scene
    options: SceneOptions = SCENES  # height and width are replaced by those of [image]


class CityscapesData(RecipeTable):
    """Cityscapes, for segmentation."""

    kind: Literal["cityscapes"]
    root: Path


class ImageNetData(RecipeTable):
    """ImageNet VID and DET, for detection."""

    kind: Literal["imagenet"]
    root: Path  # the root of the ILSVRC tree
    # Share of DET's photographs in the samples: a third, for VID:DET = 2:1 (section 5.1). 0 leaves DET out.
    still_share: float = Field(default=1 / 3, ge=0, lt=1)


class VideoData(RecipeTable):
    """Folders of the user's own videos, of which some frames are labelled."""

    kind: Literal["videos"]
    train: Path
    evaluate: Path
    classes: tuple[tuple[str, Color], ...] = Field(min_length=1)  # without the background
    upright: bool = True  # whether frames are turned as the file says, or left as they are stored
    video: int | None = Field(default=None, ge=0)  # which of a file's videos, from 0; None: the best


Data = Annotated[
    PseudoLabelledClips | MovingScenesData | CityscapesData | ImageNetData | VideoData, Field(discriminator="kind")
]


# --- networks


class WeightsRecipe(RecipeTable):
    """The initial weights of the feature network."""

    source: FileInPackage | Path
    layout: WeightsLayout


class NetworkRecipe(RecipeTable):
    """The networks. All keys but `weights` and `flow_weights` are fields of `NetworkOptions`, with its defaults."""

    blocks: tuple[int, int, int, int] = PAPER.blocks
    channels: int = Field(default=PAPER.channels, ge=1)
    stride_on: StrideOn = PAPER.stride_on
    width: Positive = PAPER.width
    flow: str = PAPER.flow
    flow_share: Positive = PAPER.flow_share
    refinement: tuple[int, int, int, int] | None = PAPER.refinement
    head_layers: int = Field(default=PAPER.head_layers, ge=0)
    regions: RegionOptions = PAPER.regions
    weights: WeightsRecipe | None = None  # None for random weights
    flow_weights: Path | None = None  # a PyTorch state dict of FlowNet-S, or None for random weights

    def options(self, classes: int, task: Task) -> NetworkOptions:
        """Return the networks' options.

        Args:
            classes: The number of classes, with the background.
            task: The task.
        """
        shared = {name: getattr(self, name) for name in type(self).model_fields if name in NETWORK_FIELDS}
        return NetworkOptions(classes=classes, task=task, **shared)

    @model_validator(mode="after")
    def _flow_exists(self) -> "NetworkRecipe":
        if self.flow not in FLOW_NETWORKS:
            raise ValueError(f"flow: there is no flow network {self.flow!r}; choose one of {', '.join(FLOW_NETWORKS)}")
        return self


# --- training


class CropRecipe(RecipeTable):
    """The augmented crops to train on. The keys are the fields of `Augmentation`."""

    height: int = Field(ge=16)
    width: int = Field(ge=16)
    zoom: tuple[Positive, Positive] = (1.0, 1.0)
    gain: Fraction = Augmentation.gain
    tint: Fraction = Augmentation.tint
    flip: Fraction = Augmentation.flip

    def augmentation(self) -> Augmentation:
        """Return the augmentation."""
        return Augmentation(**self.model_dump())


class Optimization(RecipeTable):
    """The optimizer and the schedule of the learning rate."""

    algorithm: Literal["adamw", "sgd"] = "adamw"
    momentum: Fraction = 0.9  # for sgd
    weight_decay: float = Field(default=1e-4, ge=0)
    warm_up: Fraction = 0.05  # share of the steps over which the learning rate rises
    # Shares of the steps after which the learning rate falls to a tenth. Without any it falls along a cosine to 0.
    drops: tuple[Fraction, ...] = ()
    clip_norm: float = Field(default=5.0, ge=0)  # highest norm of each parameter group's gradient; 0 for no limit


class FeatureTraining(RecipeTable):
    """Training of the recognition network from scratch, on single frames with live batch norms, instead of ImageNet."""

    task: Task | None = None  # None for the recipe's task
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)  # samples, of all devices together
    rate: Positive  # learning rate
    crop: CropRecipe
    optimization: Optimization = Optimization()


class ClipsFlow(RecipeTable):
    """The frames of the recipe's clips, with synthetic motion or with motion measured by optical flow."""

    kind: Literal["clips"]
    made_share: Fraction  # share of the samples whose motion is synthetic, and so exactly known


class MovingScenesFlow(RecipeTable):
    """Moving Scenes, whose motion is exactly known."""

    kind: Literal["moving_scenes"]


class FlyingPiecesFlow(RecipeTable):
    """Pieces of photographs that move over photographs, in the crops' size; they take the place of Flying Chairs."""

    kind: Literal["flying_pieces"]
    shift: Positive  # standard deviation of the largest translations, in pixels of these images


class FlyingChairsFlow(RecipeTable):
    """Flying Chairs, as in the paper."""

    kind: Literal["flying_chairs"]
    root: Path


class FlowTraining(RecipeTable):
    """Pre-training of the flow network. Size and zoom of the crop refer to its half-size images."""

    source: ClipsFlow | MovingScenesFlow | FlyingPiecesFlow | FlyingChairsFlow = Field(discriminator="kind")
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    rate: Positive
    crop: CropRecipe
    optimization: Optimization = Optimization()


class JointTraining(RecipeTable):
    """Joint training of all networks."""

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)  # samples, of all devices together
    features_rate: Positive  # learning rate of the pre-trained part of the feature network
    flow_rate: Positive  # learning rate of the flow network
    new_rate: Positive  # learning rate of the reduction and the head
    anchors_inside: bool = DetectionLossOptions.anchors_inside
    frozen_stages: int = Field(default=0, ge=0, le=3)  # stages of the feature network, from conv1, with fixed weights
    crop: CropRecipe
    optimization: Optimization = Optimization()


class Recipe(RecipeTable):
    """A whole recipe."""

    name: str
    version: str
    license: str
    task: Task = "segmentation"
    variant: Variant = "dff"
    key_interval: int = Field(ge=1)
    seed: int = Field(ge=0)
    notes: str = ""
    image: ImageRecipe
    data: Data
    network: NetworkRecipe
    features: FeatureTraining | None = None  # None leaves this stage out
    flow: FlowTraining | None = None  # None leaves this stage out
    joint: JointTraining

    @model_validator(mode="after")
    def _data_fits_task(self) -> "Recipe":
        for_one = {"taught": "segmentation", "cityscapes": "segmentation", "imagenet": "detection"}
        if for_one.get(self.data.kind, self.task) != self.task:
            raise ValueError(f"task: {self.data.kind} has no labels for {self.task}")
        if self.features and self.network.weights:
            raise ValueError("features: [network.weights] replaces training from scratch; leave out one of the two")
        if self.flow and self.flow.source.kind == "clips" and self.data.kind != "taught":
            raise ValueError("flow: kind = 'clips' needs clips as data (kind = 'taught')")
        return self


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeError: If the file can't be read, isn't TOML, or a key is missing, unknown or out of range.
    """
    return read_tables(path, Recipe, "recipe")


def read_tables(path: Path, kind: type[Tables], name: str) -> Tables:
    """Read and check a file of one kind of recipe.

    Args:
        path: The file.
        kind: The recipe's class.
        name: What errors call it.

    Raises:
        RecipeError: If the file can't be read, isn't TOML, or a key is missing, unknown or out of range.
    """
    try:
        return kind.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise RecipeError(f"can't read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{path} is not a valid {name}: {faults}") from error
