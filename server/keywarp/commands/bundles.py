"""Find and load the bundles of a models folder."""

from pathlib import Path

from keywarp.cli.errors import CommandError
from keywarp.engines import Bundle, BundleError, load_bundle


def list_bundle_folders(models: Path) -> list[Path]:
    """List the folders of `models` that hold a bundle, in alphabetical order."""
    return sorted(manifest.parent for manifest in models.glob("*/bundle.json"))


def find_bundle(name: str, models: Path) -> Bundle:
    """Load a bundle.

    Args:
        name: The name of a folder in `models`, or the path of a bundle's folder.
        models: The models folder.

    Raises:
        CommandError: If there is no such bundle, or it can't be loaded.
    """
    folder = models / name if (models / name / "bundle.json").exists() else Path(name)
    if not folder.is_dir():
        known = ", ".join(known.name for known in list_bundle_folders(models))
        raise CommandError(f"no model {name!r} in {models}; there are: {known or 'none'}")
    try:
        return load_bundle(folder)
    except BundleError as error:
        raise CommandError(str(error)) from error
