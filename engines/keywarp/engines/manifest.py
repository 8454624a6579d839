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


def map_names(prefix: str, count: int) -> tuple[str, ...]:
    """The graphs' names for something that each feature map has: `features`, or `features_0`, `features_1`, ..."""
    return (prefix,) if count == 1 else tuple(f"{prefix}_{number}" for number in range(count))


class Record(BaseModel):
    """Frozen, and strict about fields that it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ManifestClass(Record):
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


class FeatureSpec(Record):
    """One map that the feature network yields and the warp moves: (N, channels, H / stride, W / stride)."""

    name: str  # as `map_names` gives them
    stride: int = Field(ge=1)
    channels: int = Field(ge=1)


class FlowInput(Record):
    """What the flow network sees: the mean-subtracted RGB frame (0..255, no std), average-pooled by `downscale`."""

    downscale: int = Field(default=2, ge=1, le=8)


Probability = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[float, Field(gt=1e-3, lt=1e3, allow_inf_nan=False)]
Deviation = Annotated[float, Field(gt=0, lt=1e3, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=100_000)]
MAX_LABELS = 256  # classes of a segmentation: labels are bytes


class SegmentationSettings(Record):
    """How class ids come out of the head's `scores`."""

    stride: int = Field(ge=1)  # image pixels per cell of the scores


class RegionDetection(Record):
    """How boxes come out of an R-FCN head's maps: proposals, position-sensitive pooling, suppression (section 4)."""

    kind: Literal["regions"] = "regions"
    stride: int = Field(default=16, ge=1)  # image pixels per cell of the maps
    anchor_base: int = Field(default=16, ge=1, le=8192)  # pixels: the side that the scales multiply
    anchor_ratios: tuple[Size, ...] = Field(default=(0.5, 1.0, 2.0), min_length=1, max_length=16)  # height / width
    anchor_scales: tuple[Size, ...] = Field(default=(8.0, 16.0, 32.0), min_length=1, max_length=16)
    candidates: Count = 6000  # of the anchors, the best that enter the suppression
    proposals: Count = 300  # that leave it
    proposal_iou: Probability = 0.7  # of two proposals above this, one stays
    pooling: int = Field(default=7, ge=1, le=32)  # k: bins along each side of a region
    box_std: tuple[Deviation, Deviation, Deviation, Deviation] = (
        0.1,
        0.1,
        0.2,
        0.2,
    )  # of dx, dy, dw, dh in the box maps
    threshold: Probability = 0.05  # lowest score that is reported
    iou: Probability = 0.3  # of two objects of one class above this, one stays
    limit: Count = 100  # objects reported at most


class DenseDetection(Record):
    """How objects come out of a head that yields boxes and scores by itself: threshold and suppression."""

    kind: Literal["dense"] = "dense"
    threshold: Probability = 0.05
    iou: Probability = 0.5
    candidates: Count = 1000  # the best that enter the suppression
    limit: Count = 100


DetectionSettings = Annotated[RegionDetection | DenseDetection, Field(discriminator="kind")]


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
    task: Literal["segmentation", "detection"]
    classes: tuple[ManifestClass, ...] = Field(min_length=2)
    image: ImagePreparation
    features: tuple[FeatureSpec, ...] = Field(min_length=1)
    flow: FlowInput = FlowInput()
    segmentation: SegmentationSettings | None = None  # None: the scores have the features' stride
    detection: DetectionSettings | None = None  # for detectors
    key_interval: int = Field(default=10, ge=1, le=1000)
    opset: int = Field(ge=16, le=19)  # from 20 on, GridSample's modes are renamed and TensorRT misreads them
    license: str
    provenance: Provenance = Provenance()
    files: dict[str, GraphFile]

    @field_validator("classes")
    @classmethod
    def _ids_are_indices(cls, classes: tuple[ManifestClass, ...]) -> tuple[ManifestClass, ...]:
        if [c.id for c in classes] != list(range(len(classes))):
            raise ValueError(f"class ids must be 0..{len(classes) - 1} in order, got {[c.id for c in classes]}")
        return classes

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        expected = map_names("features", len(self.features))
        if tuple(f.name for f in self.features) != expected:
            raise ValueError(f"the feature maps must be named {', '.join(expected)}, in order")
        if (self.task == "detection") != (self.detection is not None):
            raise ValueError("`detection` says how boxes are found: a detector has it, no other model does")
        if self.task == "segmentation":
            if len(self.classes) > MAX_LABELS:
                raise ValueError(f"labels are bytes: {MAX_LABELS} classes at most, got {len(self.classes)}")
            if self.segmentation is None and len(self.features) > 1:
                raise ValueError("with several feature maps, `segmentation.stride` must say what the scores' stride is")
        elif self.segmentation is not None:
            raise ValueError(f"`segmentation` isn't for {self.task}")
        finest = self.finest.stride
        if any(f.stride % finest or (f.stride // finest).bit_count() != 1 for f in self.features):
            strides = [f.stride for f in self.features]
            raise ValueError(f"strides must be the finest one times powers of 2, got {strides}")
        return self

    @property
    def finest(self) -> FeatureSpec:
        """The feature map of the smallest stride: the flow is in cells of it."""
        return min(self.features, key=lambda f: f.stride)

    @field_validator("files")
    @classmethod
    def _every_graph(cls, files: dict[str, GraphFile]) -> dict[str, GraphFile]:
        if set(files) != set(GRAPHS):
            missing, unknown = sorted(set(GRAPHS) - set(files)), sorted(set(files) - set(GRAPHS))
            raise ValueError(f"files must be {', '.join(GRAPHS)}; missing {missing}, unknown {unknown}")
        return files
