"""The bundles that come with Keywarp: `street` and `street-detect`."""

from pathlib import Path
from typing import Final

DEFAULT_MODELS: Final = Path("models")  # the folder of bundles that is read if none is named
_INSTALLED: Final = Path(__file__).with_name("shipped")  # wheels have a copy there (hatch_build.py)
_CHECKOUT: Final = Path(__file__).parents[3] / "models"
_NAMES: Final = ("street", "street-detect")  # a checkout's folder may hold others, too


def shipped_bundles() -> dict[str, Path]:
    """Return the folders of the bundles that come with this installation, by name."""
    root = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
    folders = {name: root / name for name in _NAMES}
    return {name: folder for name, folder in folders.items() if (folder / "bundle.json").exists()}
