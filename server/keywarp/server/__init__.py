"""Keywarp's server: the FastAPI application and the process around it."""

from keywarp.server.app import create_app
from keywarp.server.process import Server, run
from keywarp.server.settings import Settings

__all__ = ["Server", "Settings", "create_app", "run"]
