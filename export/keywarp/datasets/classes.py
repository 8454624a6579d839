"""The classes of the paper's two data sets, with the background as class 0, and their colours."""

import colorsys

Color = tuple[int, int, int]  # RGB, 0..255
Classes = tuple[tuple[str, Color], ...]  # name and colour

BACKGROUND: tuple[str, Color] = ("background", (0, 0, 0))

# Cityscapes' 19 evaluated classes ("train ids"), in its own order and colours
CITYSCAPES: Classes = (
    BACKGROUND,
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)

_VID_NAMES = (
    *("airplane", "antelope", "bear", "bicycle", "bird", "bus", "car", "cattle", "dog", "domestic cat"),
    *("elephant", "fox", "giant panda", "hamster", "horse", "lion", "lizard", "monkey", "motorcycle", "rabbit"),
    *("red panda", "sheep", "snake", "squirrel", "tiger", "train", "turtle", "watercraft", "whale", "zebra"),
)


def distinct_colors(count: int) -> tuple[Color, ...]:
    """Return a number of bright colours. Neighbours in the list are far apart in hue."""
    hues = (number * 0.618034 % 1 for number in range(count))  # the golden ratio spreads any number of them evenly
    colors = (colorsys.hsv_to_rgb(hue, 0.75, 0.95) for hue in hues)
    return tuple((round(r * 255), round(g * 255), round(b * 255)) for r, g, b in colors)


# ImageNet VID's 30 classes, in the order of the challenge's development kit
IMAGENET_VID: Classes = (BACKGROUND, *zip(_VID_NAMES, distinct_colors(len(_VID_NAMES)), strict=True))

_COCO_NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)

# The 80 classes of COCO's detection task, in the order of their category ids
COCO: Classes = (BACKGROUND, *zip(_COCO_NAMES, distinct_colors(len(_COCO_NAMES)), strict=True))
