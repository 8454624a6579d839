"""Give wheels what a checkout has elsewhere: the JavaScript client, which the dashboard loads, and the bundles."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COPIES = {  # folders of the checkout, and where they are in wheels
    "clients/web/src": "keywarp/server/dashboard/page/vendor",
    "models/street": "keywarp/engines/shipped/street",
    "models/street-detect": "keywarp/engines/shipped/street-detect",
}


class CopiesHook(BuildHookInterface[Any]):
    """Adds the copies to every wheel but that of an editable installation, where they would grow old."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to the wheel that is about to be built."""
        if version != "editable":
            build_data["force_include"] |= COPIES
