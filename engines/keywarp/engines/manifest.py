"""The manifest of a bundle, `bundle.json`.

The manifest is the contract between export, which writes it, and the engine, which reads it. It holds data only, and
reading one never executes anything. Unknown fields and unknown versions are errors, so that a bundle is either
understood entirely or refused.
"""

import hashlib
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from keywarp.engines.motion.names import MotionName, MotionSource
from keywarp.engines.quantization import QUANTIZABLE, Quantization, QuantizedPrecision, quantized_file
from keywarp.engines.records import Count, GraphFile, Probability, Record

MANIFEST = "bundle.json"
FLOW_GRAPH = "flow.onnx"
GRAPHS = ("features.onnx", FLOW_GRAPH, "warp.onnx", "head.onnx")
OPTIONAL = frozenset({FLOW_GRAPH})  # graphs that a bundle can do without

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Channel = Annotated[int, Field(ge=0, le=255)]
Triple = tuple[float, float, float]


def map_names(prefix: str, count: int) -> tuple[str, ...]:
    """Return the tensors' names for one feature map (`features`) or several (`features_0`, `features_1`, ...)."""
    return (prefix,) if count == 1 else tuple(f"{prefix}_{number}" for number in range(count))


class ManifestClass(Record):
    """One class of the task. Its id is its index in the class dimension of the head's scores."""

    id: int = Field(ge=0)
    name: str = Field(min_length=1)
    color: tuple[Channel, Channel, Channel]  # RGB


class ImagePreparation(Record):
    """How a frame of any size becomes the input of the feature network.

    All resizing is bilinear. There are three ways to fit a frame:

    - `resize`: its shorter side becomes `short_side` pixels, or less if the longer side would exceed `long_side`. Both
      sides are rounded to `multiple`.
    - `stretch`: it becomes `height` x `width` pixels exactly, whatever its aspect ratio.
    - `letterbox`: likewise, but with its aspect ratio kept. The rest is filled with grey of the value `pad`.

    Then each channel becomes `(pixel - mean) / std`, with pixels from 0 to 255.
    """

    fit: Literal["resize", "stretch", "letterbox"] = "resize"
    short_side: int | None = Field(default=None, ge=16, le=8192)  # with `resize` only, pixels
    long_side: int | None = Field(default=None, ge=16, le=8192)  # with `resize` only, pixels
    multiple: int = Field(default=1, ge=1, le=256)  # with `resize` only, pixels
    height: int | None = Field(default=None, ge=16, le=8192)  # with `stretch` and `letterbox` only, pixels
    width: int | None = Field(default=None, ge=16, le=8192)  # with `stretch` and `letterbox` only, pixels
    pad: Channel = 114  # of a letterbox, in all channels
    padding: Literal["center", "end"] = "center"  # of a letterbox: on both sides, or below and on the right
    channel_order: Literal["rgb", "bgr"] = "rgb"
    mean: Triple = (0.0, 0.0, 0.0)  # in `channel_order`
    std: Triple = (1.0, 1.0, 1.0)  # in `channel_order`

    @model_validator(mode="after")
    def _check_sides_and_std(self) -> Self:
        sides, size = ("short_side", "long_side"), ("height", "width")
        needed, others = (sides, size) if self.fit == "resize" else (size, (*sides, "multiple"))
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"the fit {self.fit} needs {name}")
        for name in others:
            if getattr(self, name) not in (None, 1):
                raise ValueError(f"the fit {self.fit} has no {name}: leave it out")
        if self.short_side is not None and self.long_side is not None and self.long_side < self.short_side:
            raise ValueError(f"long_side {self.long_side} is below short_side {self.short_side}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        return self

    @property
    def rgb_mean(self) -> Triple:
        """The mean in the order red, green, blue."""
        red, green, blue = self.mean
        return self.mean if self.channel_order == "rgb" else (blue, green, red)


class FeatureSpec(Record):
    """A feature map, which the feature network computes and the warp moves: (N, channels, H / stride, W / stride)."""

    name: str  # see `map_names`
    stride: int = Field(ge=1)  # pixels of the input per cell
    channels: int = Field(ge=1)


class HeldSpec(Record):
    """A tensor that the feature network gives besides its maps, such as class tokens.

    On propagated frames, the head gets the key frame's, which isn't warped.
    """

    name: str  # `held`, or `held_0`, `held_1` and so on; see `map_names`
    shape: tuple[Count, ...] = Field(min_length=1, max_length=6)  # float, whatever the size of the input


class FlowInput(Record):
    """The flow network's input: the RGB frame (0..255) minus the mean, average-pooled by `downscale`."""

    downscale: int = Field(default=2, ge=1, le=8)  # factor per side


Size = Annotated[float, Field(gt=1e-3, lt=1e3, allow_inf_nan=False)]
Deviation = Annotated[float, Field(gt=0, lt=1e3, allow_inf_nan=False)]
MAX_LABELS = 256  # most classes of a segmentation, since labels are bytes


class SegmentationSettings(Record):
    """How the head's `scores` become class ids."""

    stride: int = Field(ge=1)  # pixels of the input per cell of the scores
    logits: bool = False  # whether the scores are logits of a softmax, not probabilities; new in version 2


class DenseSettings(Record):
    """What the head's `values` are: a number for each pixel, such as the depth."""

    stride: int = Field(ge=1)  # pixels of the input per cell of the values
    quantity: str = Field(default="value", min_length=1, max_length=64)  # "depth", "inverse depth", "heat", ...
    unit: str | None = Field(default=None, min_length=1, max_length=16)  # "m"; None if there is none, or it is unknown


class RegionDetection(Record):
    """How an R-FCN head's maps become boxes: proposals, position-sensitive pooling, suppression (section 4)."""

    kind: Literal["regions"] = "regions"
    stride: int = Field(default=16, ge=1)  # pixels of the input per cell of the maps
    anchor_base: int = Field(default=16, ge=1, le=8192)  # side that the scales multiply, pixels
    anchor_ratios: tuple[Size, ...] = Field(default=(0.5, 1.0, 2.0), min_length=1, max_length=16)  # height / width
    anchor_scales: tuple[Size, ...] = Field(default=(8.0, 16.0, 32.0), min_length=1, max_length=16)
    candidates: Count = 6000  # best anchors that enter the suppression
    proposals: Count = 300  # best boxes that leave the suppression
    proposal_iou: Probability = 0.7  # overlap above which the worse of two proposals is removed
    pooling: int = Field(default=7, ge=1, le=32)  # bins k along each side of a region
    box_std: tuple[Deviation, Deviation, Deviation, Deviation] = (0.1, 0.1, 0.2, 0.2)  # unit of dx, dy, dw, dh
    threshold: Probability = 0.05  # lowest score of a reported object
    iou: Probability = 0.3  # overlap above which the worse of two objects of one class is removed
    limit: Count = 100  # most reported objects


MaskKind = Literal["prototypes", "image", "box"]


class Keypoints(Record):
    """The points that each object has, such as a person's joints."""

    names: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1, max_length=1000)
    skeleton: tuple[tuple[int, int], ...] = Field(default=(), max_length=10_000)  # indices of points that lines join

    @model_validator(mode="after")
    def _check_skeleton(self) -> Self:
        for pair in self.skeleton:
            if not all(0 <= index < len(self.names) for index in pair):
                raise ValueError(f"the skeleton joins the points {pair}, but there are only 0 to {len(self.names) - 1}")
        return self


class DenseDetection(Record):
    """How the boxes and scores of a dense head (SSD, ...) become objects: threshold and suppression.

    Objects may have masks. A pixel in an object's box belongs to the object where a value above 0 is interpolated from
    the mask's cells. There are three ways to give them:

    - `prototypes`: a cell is the sum of the prototypes' cells, weighted by the object's coefficients (YOLACT, YOLO).
    - `image`: a cell of the object's own mask, which covers the networks' input (DETR).
    - `box`: likewise, but the mask covers the object's box only, and is -0.5 beyond it (Mask R-CNN).
    """

    kind: Literal["dense"] = "dense"
    masks: MaskKind | None = None  # new in version 2
    keypoints: Keypoints | None = None  # new in version 2
    threshold: Probability = 0.05  # lowest score of a reported object
    iou: Probability = 0.5  # overlap above which the worse of two objects of one class is removed
    candidates: Count = 1000  # best boxes that enter the suppression
    limit: Count = 100  # most reported objects


DetectionSettings = Annotated[RegionDetection | DenseDetection, Field(discriminator="kind")]


class Provenance(Record):
    """Where the weights come from, in free-form values for people."""

    recipe: str = ""  # path of the training configuration in the repository
    data: str = ""
    accuracy: dict[str, Any] = Field(default_factory=dict)
    notes: str = ""


class Manifest(Record):
    """The whole of `bundle.json`."""

    schema_version: Literal[1, 2] = 2
    name: Name
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    task: Literal["segmentation", "detection", "dense"]  # `dense` is new in version 2
    classes: tuple[ManifestClass, ...] = ()  # two or more, but none for dense maps
    background: bool = True  # whether class 0 is the background, neither drawn nor counted; new in version 2
    image: ImagePreparation
    features: tuple[FeatureSpec, ...] = Field(min_length=1)
    held: tuple[HeldSpec, ...] = ()  # new in version 2
    flow: FlowInput = FlowInput()
    segmentation: SegmentationSettings | None = None  # None if the scores have the features' stride
    detection: DetectionSettings | None = None  # for detectors only
    dense: DenseSettings | None = None  # for dense maps only; new in version 2
    key_interval: int = Field(default=10, ge=1, le=1000)
    motion: MotionName = "network"  # the default motion source, the best one measured; new in version 2
    opset: int = Field(ge=16, le=19)  # opset 20 renames GridSample's modes, and TensorRT misreads them
    license: str
    provenance: Provenance = Provenance()
    files: dict[str, GraphFile]
    precisions: dict[QuantizedPrecision, Quantization] = Field(default_factory=dict)  # new in version 2

    @model_validator(mode="after")
    def _check_version(self) -> Self:
        if self.schema_version == 1:
            new: list[str] = [
                name
                for name in ("background", "held", "motion", "dense", "precisions")
                if name in self.model_fields_set
            ]
            new += ["image.fit"] if self.image.fit != "resize" else []
            new += ["segmentation.logits"] if self.segmentation and self.segmentation.logits else []
            new += [f"detection.{name}" for name in ("masks", "keypoints") if getattr(self.detection, name, None)]
            if new:
                raise ValueError(f"the field `{new[0]}` needs `schema_version` 2")
        return self

    @field_validator("classes")
    @classmethod
    def _check_class_ids(cls, classes: tuple[ManifestClass, ...]) -> tuple[ManifestClass, ...]:
        if [c.id for c in classes] != list(range(len(classes))):
            raise ValueError(f"class ids must be 0..{len(classes) - 1} in order, got {[c.id for c in classes]}")
        return classes

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        expected = map_names("features", len(self.features))
        if tuple(f.name for f in self.features) != expected:
            raise ValueError(f"the feature maps must be named {', '.join(expected)}, in order")
        expected = map_names("held", len(self.held)) if self.held else ()
        if tuple(h.name for h in self.held) != expected:
            raise ValueError(f"the held tensors must be named {', '.join(expected)}, in order")
        if (self.task == "detection") != (self.detection is not None):
            raise ValueError("a detector needs the field `detection`, and no other model may have it")
        if (self.task == "dense") != (self.dense is not None):
            raise ValueError("a model for dense maps needs the field `dense`, and no other model may have it")
        if self.task == "dense":
            if self.classes:
                raise ValueError(f"a model for dense maps has no classes: leave them out, got {len(self.classes)}")
        elif len(self.classes) < 2:
            raise ValueError(f"a model for {self.task} needs two classes or more, got {len(self.classes)}")
        if self.task == "segmentation":
            if len(self.classes) > MAX_LABELS:
                raise ValueError(
                    f"a segmentation may have {MAX_LABELS} classes at most, got {len(self.classes)}: labels are bytes"
                )
            if self.segmentation is None and len(self.features) > 1:
                raise ValueError("with several feature maps, `segmentation.stride` must give the scores' stride")
        elif not self.background:
            raise ValueError(
                "a detector's class 0 is always the background, and dense maps have none: leave out the field "
                "`background`"
            )
        elif self.segmentation is not None:
            raise ValueError(f"a model for {self.task} must not have the field `segmentation`")
        finest = self.finest.stride
        if any(f.stride % finest or (f.stride // finest).bit_count() != 1 for f in self.features):
            strides = [f.stride for f in self.features]
            raise ValueError(f"the strides must be the smallest one times powers of 2, got {strides}")
        return self

    @property
    def finest(self) -> FeatureSpec:
        """The feature map with the smallest stride. The flow is in its cells."""
        return min(self.features, key=lambda f: f.stride)

    @property
    def scores_stride(self) -> int:
        """The stride of a segmentation's scores, pixels."""
        return self.segmentation.stride if self.segmentation else self.finest.stride

    @model_validator(mode="after")
    def _check_motion(self) -> Self:
        if not self.has_flow_network and MotionSource.parse(self.motion).needs_network:
            raise ValueError(
                f"the motion source {self.motion} needs {FLOW_GRAPH}, which is missing: set the field `motion` to one "
                f"of {', '.join(self.motions)}"
            )
        return self

    @model_validator(mode="after")
    def _check_precisions(self) -> Self:
        for precision, quantization in self.precisions.items():
            allowed = {quantized_file(graph, precision) for graph in QUANTIZABLE if graph in self.files}
            unknown = sorted(set(quantization.files) - allowed)
            if unknown or not quantization.files:
                found = ", ".join(unknown) or "none"
                raise ValueError(f"the files in {precision} must be of {', '.join(sorted(allowed))}, got {found}")
            if quantization.source != self.digest:
                raise ValueError(
                    f"its graphs in {precision} were made of other graphs than it has: quantise the bundle again "
                    "(keywarp quantize)"
                )
        return self

    @property
    def digest(self) -> str:
        """One SHA-256 (hex) over all graphs in fp32."""
        hashes = (self.files[name].sha256 for name in GRAPHS if name in self.files)
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    @property
    def all_files(self) -> dict[str, GraphFile]:
        """All files of the bundle, those of other precisions included."""
        files = dict(self.files)
        for quantization in self.precisions.values():
            files |= quantization.files
        return files

    @property
    def has_flow_network(self) -> bool:
        """Whether there is a flow network, which some motion sources need."""
        return FLOW_GRAPH in self.files

    @property
    def motions(self) -> tuple[MotionName, ...]:
        """The names of the motion sources that this bundle has."""
        names: tuple[MotionName, ...] = get_args(MotionName)
        return tuple(name for name in names if self.has_flow_network or not MotionSource.parse(name).needs_network)

    @field_validator("files")
    @classmethod
    def _check_files(cls, files: dict[str, GraphFile]) -> dict[str, GraphFile]:
        missing, unknown = sorted(set(GRAPHS) - OPTIONAL - set(files)), sorted(set(files) - set(GRAPHS))
        if missing or unknown:
            raise ValueError(f"the files must be {', '.join(GRAPHS)}; missing {missing}, unknown {unknown}")
        return files
