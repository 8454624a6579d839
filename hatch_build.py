"""Give wheels a copy of the JavaScript client, which the dashboard loads. A checkout serves it from clients/web."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "clients/web/src"
TARGET = "keywarp/server/dashboard/page/vendor"


class WebClientHook(BuildHookInterface[Any]):
    """Adds the client's files to every wheel but that of an editable installation, where the copy would grow old."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to the wheel that is about to be built."""
        if version != "editable":
            build_data["force_include"][SOURCE] = TARGET
