"""A flow recipe: one TOML file with the data, the network and the training of a flow network by itself."""

import tomllib
from pathlib import Path

from pydantic import Field, ValidationError, model_validator

from keywarp.training.errors import RecipeError
from keywarp.training.recipe import FileInPackage, Fraction, Optimization, Positive, RecipeTable


class FlowClip(RecipeTable):
    """A video to learn from; optical flow teaches its motion."""

    name: str
    source: FileInPackage | Path
    cuts: tuple[int, ...] = ()  # indices of the frames that start a new shot
    short_side: int = Field(ge=16)  # pixels that frames are resized to before they are halved
    long_side: int = Field(ge=16)
    first: int = Field(default=0, ge=0)  # frames that are used: from this one ...
    stop: int | None = None  # ... to the one before this one; None for the last
    still: bool = False  # whether the camera stands still


class FlowStage(RecipeTable):
    """One stage of the training. Steps are counted from the first stage's first step."""

    steps: int = Field(ge=1)  # the step at which the learning rate would have fallen to 0, along a cosine from step 0
    until: int | None = Field(default=None, ge=1)  # the step to stop after; None for `steps`
    batch: int = Field(ge=1)  # samples, of all devices together
    rate: Positive  # peak learning rate
    real_share: Fraction = 0.0  # share of pairs from the clips; the others are generated

    @model_validator(mode="after")
    def _stops_in_time(self) -> "FlowStage":
        if self.until is not None and self.until > self.steps:
            raise ValueError(f"until: {self.until} is after the last of {self.steps} steps")
        return self


class FlowRecipe(RecipeTable):
    """A whole flow recipe, for `FlowPyramid`."""

    name: str
    license: str
    notes: str = ""
    share: Positive = 1.0  # fraction of the published channels
    seed: int = Field(default=0, ge=0)
    height: int = Field(ge=64)  # pixels of the training images, which are half-size images
    width: int = Field(ge=96)
    stages: tuple[FlowStage, ...] = Field(min_length=1)  # each goes on with the weights and the optimizer of the last
    clips: tuple[FlowClip, ...] = ()
    optimization: Optimization = Optimization()

    @property
    def steps(self) -> int:
        """The steps of all stages."""
        return self.stages[-1].until or self.stages[-1].steps

    @model_validator(mode="after")
    def _has_clips(self) -> "FlowRecipe":
        if not self.clips and any(stage.real_share for stage in self.stages):
            raise ValueError("stages: real_share needs [[clips]]")
        return self


def read_flow_recipe(path: Path) -> FlowRecipe:
    """Read and check a flow recipe.

    Raises:
        RecipeError: If the file can't be read, isn't TOML, or a key is missing, unknown or out of range.
    """
    try:
        return FlowRecipe.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise RecipeError(f"can't read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{path} is not a valid flow recipe: {faults}") from error
