"""Keywarp's server.

`keywarp.server.settings.Settings` holds what an operator decides, `keywarp.server.app.create_app` makes the FastAPI
application, and `keywarp.server.process.run` serves it. This package imports none of them, so that commands which need
only the settings or the errors start without FastAPI.
"""
