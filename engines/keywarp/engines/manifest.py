"""`bundle.json`: what a bundle says of itself.

The manifest is the contract between export (which writes it) and engines (which read it). It is data only: reading one
never executes anything. Unknown fields and unknown versions are errors, so that a bundle is either understood
entirely or refused.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MANIFEST = "bundle.json"
GRAPHS = ("features.onnx", "flow.onnx", "warp.onnx", "head.onnx")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Channel = Annotated[int, Field(ge=0, le=255)]
Triple = tuple[float, float, float]


class Record(BaseModel):
    """Frozen, and strict about fields that it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ClassInfo(Record):
    """One class of the task: its id is its index in the head's class dimension."""

    id: int = Field(ge=0)
    name: str = Field(min_length=1)
    color: tuple[Channel, Channel, Channel]  # RGB


class ImagePreparation(Record):
    """From a frame of any size to the feature network's input.

    The frame is resized (bilinear) so that its shorter side is `short_side` pixels unless the longer would then exceed
    `long_side`; both sides are rounded to `multiple`. Then `(pixel - mean) / std` per channel, pixels in 0..255.
    """

    short_side: int = Field(ge=16, le=8192)
    long_side: int = Field(ge=16, le=8192)
    multiple: int = Field(default=1, ge=1, le=256)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: Triple = (0.0, 0.0, 0.0)  # in `channel_order`
    std: Triple = (1.0, 1.0, 1.0)  # in `channel_order`

    @model_validator(mode="after")
    def _sides_in_order(self) -> Self:
        if self.long_side < self.short_side:
            raise ValueError(f"long_side {self.long_side} is below short_side {self.short_side}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        return self


class FeatureMap(Record):
    """One map that the feature network yields and the warp moves: (N, channels, H / stride, W / stride)."""

    name: str  # "features", or "features_0", "features_1", ...
    stride: int = Field(ge=1)
    channels: int = Field(ge=1)


class FlowInput(Record):
    """What the flow network sees: the mean-subtracted RGB frame (0..255, no std), average-pooled by `downscale`."""

    downscale: int = Field(default=2, ge=1, le=8)


class GraphFile(Record):
    """The identity of one file of the bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(gt=0)  # bytes


class Provenance(Record):
    """Where the weights come from; free-form values, for people."""

    recipe: str = ""  # the training configuration, as a path in the repository
    data: str = ""
    accuracy: dict[str, Any] = Field(default_factory=dict)
    notes: str = ""


class Manifest(Record):
    """The whole of `bundle.json`."""

    schema_version: Literal[1] = 1
    name: Name
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    task: Literal["segmentation"]
    classes: tuple[ClassInfo, ...] = Field(min_length=2)
    image: ImagePreparation
    features: tuple[FeatureMap, ...] = Field(min_length=1)
    flow: FlowInput = FlowInput()
    key_interval: int = Field(default=10, ge=1, le=1000)
    opset: int = Field(ge=16, le=19)  # from 20 on, GridSample's modes are renamed and TensorRT misreads them
    license: str
    provenance: Provenance = Provenance()
    files: dict[str, GraphFile]

    @field_validator("classes")
    @classmethod
    def _ids_are_indices(cls, classes: tuple[ClassInfo, ...]) -> tuple[ClassInfo, ...]:
        if [c.id for c in classes] != list(range(len(classes))):
            raise ValueError(f"class ids must be 0..{len(classes) - 1} in order, got {[c.id for c in classes]}")
        return classes

    @field_validator("files")
    @classmethod
    def _every_graph(cls, files: dict[str, GraphFile]) -> dict[str, GraphFile]:
        if set(files) != set(GRAPHS):
            missing, unknown = sorted(set(GRAPHS) - set(files)), sorted(set(files) - set(GRAPHS))
            raise ValueError(f"files must be {', '.join(GRAPHS)}; missing {missing}, unknown {unknown}")
        return files
