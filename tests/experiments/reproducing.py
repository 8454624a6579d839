"""`keywarp reproduce` on pictures that take no time to load."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keywarp.datasets.photographs import RESOURCES
from tests.datasets.synthetic import textured


@dataclass(frozen=True)
class Reproduced:
    """What the smoke preset of all experiments left behind."""

    work: Path
    results: Path


class Stages:
    """A reporter that remembers the stages."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def stage(self, name: str, total: int) -> None:  # noqa: ARG002
        self.names.append(name)

    def step(self, done: int | None = None, note: str = "") -> None:
        """Nothing."""


def write_photographs(work: Path) -> Path:
    """Eight small pictures, as if the package of photographs had been fetched; returns the folder."""
    pictures: dict[str, Any] = {}
    for number in range(8):
        pictures[f"{number:03d}"] = cv2.imencode(".jpg", textured(90, 120, seed=number))[1]
    packages = work / "packages"
    packages.mkdir(parents=True)
    np.savez(packages / f"photographs-{RESOURCES.sha256[:16]}.npz", allow_pickle=False, **pictures)
    return work
