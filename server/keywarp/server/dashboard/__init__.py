"""The dashboard: a page and its files, served from this package. It holds no data, so it is open without an API key."""

from keywarp.server.dashboard.routes import PREFIX, router

__all__ = ["PREFIX", "router"]
