"""A flow recipe: one TOML file with the training of a flow network by itself, on generated pairs."""

from pathlib import Path

from pydantic import Field

from keywarp.training.recipe import FileInPackage, Optimization, Positive, RecipeTable, read_tables


class CutoutsRecipe(RecipeTable):
    """A video of a still camera, from which moving things and the background are cut out."""

    source: FileInPackage | Path
    short_side: int = Field(ge=16)  # pixels that frames are resized to before they are halved
    long_side: int = Field(ge=16)
    stop: int | None = None  # the frame before which to stop; None for all frames
    weight: int = Field(default=10, ge=0)  # the background counts as this many photographs


class FlowRecipe(RecipeTable):
    """A whole flow recipe, for `FlowPyramid`."""

    name: str
    license: str
    notes: str = ""
    share: Positive = 1.0  # fraction of the published channels
    seed: int = Field(default=0, ge=0)
    height: int = Field(ge=64)  # pixels of the training images, which are half-size images
    width: int = Field(ge=96)
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)  # samples, of all devices together
    rate: Positive  # peak learning rate
    cutouts: CutoutsRecipe | None = None
    optimization: Optimization = Optimization()


def read_flow_recipe(path: Path) -> FlowRecipe:
    """Read and check a flow recipe.

    Raises:
        RecipeError: If the file can't be read, isn't TOML, or a key is missing, unknown or out of range.
    """
    return read_tables(path, FlowRecipe, "flow recipe")
