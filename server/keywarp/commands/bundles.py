"""Find and load the bundles of a models folder."""

from pathlib import Path

from keywarp.cli.errors import CommandError
from keywarp.engines import Bundle, BundleError, load_bundle
from keywarp.engines.shipped import DEFAULT_MODELS, shipped_bundles


def list_bundle_folders(models: Path) -> list[Path]:
    """List the folders of bundles that commands find by name, in alphabetical order.

    Args:
        models: The models folder. The default one is complemented by the bundles that come with Keywarp.
    """
    folders = {manifest.parent.name: manifest.parent for manifest in models.glob("*/bundle.json")}
    if models == DEFAULT_MODELS:
        folders = shipped_bundles() | folders
    return [folders[name] for name in sorted(folders)]


def find_bundle(name: str, models: Path) -> Bundle:
    """Load a bundle.

    Args:
        name: The name of a folder in `models`, the path of a bundle's folder, or, with the default `models`, the name
            of a bundle that comes with Keywarp.
        models: The models folder.

    Raises:
        CommandError: If there is no such bundle, or it can't be loaded.
    """
    named = {folder.name: folder for folder in list_bundle_folders(models)}
    folder = named.get(name, Path(name))
    if not folder.is_dir():
        raise CommandError(
            f"no model {name!r} in {models}; there are: {', '.join(named) or 'none'}. `keywarp import` makes one of an "
            "ONNX file, and --models names another folder"
        )
    try:
        return load_bundle(folder)
    except BundleError as error:
        raise CommandError(str(error)) from error
