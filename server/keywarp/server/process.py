"""The server process: uvicorn, which announces its address and drains the service before it stops."""

import asyncio
import signal
import sys
from contextlib import suppress
from socket import socket
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import cv2
import uvicorn

from keywarp.engines.memory import limit_arenas
from keywarp.server.app import create_app, service_of
from keywarp.server.connections import (
    BACKLOG,
    AcceptErrors,
    Connections,
    HttpProtocol,
    WebSocketProtocol,
    raise_file_limit,
    room_for_connections,
)
from keywarp.server.service import Service
from keywarp.server.settings import Settings

if TYPE_CHECKING:
    from keywarp.server.reloading import Reloader


class Server(uvicorn.Server):
    """Drains the service before it closes connections, and stops if the models can't be loaded."""

    def __init__(self, settings: Settings, service: Service | None = None) -> None:
        """Prepare the application and the server.

        Args:
            settings: The operator's settings.
            service: The service behind the application, made from the same settings, or None for a new one.

        Raises:
            BundleError, CameraStoreError, KeyFileError, SiteError, TracesError: As `create_app` raises them.
        """
        app = create_app(settings, service)
        self.service = service_of(app)
        self._reloader: Reloader = app.state.reloader
        self._reloading: asyncio.Task[None] | None = None
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=HttpProtocol,
                ws=WebSocketProtocol,
                backlog=1,  # connections that are accepted at a time, each counted before the next
                ws_max_size=settings.max_message_bytes,
                ws_per_message_deflate=False,  # payloads are already compressed
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        )
        self.server_state = self.connections = Connections(settings.max_connections)
        self.service.metrics.watch_connections(lambda: len(self.connections.connections))

    @property
    def url(self) -> str:
        """The URL of the server, once it has started."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start, and print the URL.

        Raises:
            OSError: If the server can't listen on its address.
        """
        self.connections.limit = room_for_connections(self.connections.limit)
        asyncio.get_running_loop().set_exception_handler(AcceptErrors())
        try:
            await super().startup(sockets)
        except SystemExit as error:  # uvicorn has logged why
            address = f"{self.config.host}:{self.config.port}"
            raise OSError(f"can't listen on {address}: choose another host or port") from error
        for listener in self.servers:
            for endpoint in listener.sockets:
                with endpoint.dup() as listening:
                    listening.listen(BACKLOG)
        with suppress(RuntimeError, NotImplementedError):  # not in the main thread, or not on this system
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        print(f"keywarp: listening on {self.url}", flush=True)

    def _reload(self) -> None:
        self._reloading = asyncio.create_task(self._reloader.reload_and_log())

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop. uvicorn calls this every 0.1 s."""
        if counter % 10 == 0:
            self.connections.sweep()
        return await super().on_tick(counter) or self.service.failure is not None

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Drain the service, unless SIGINT arrives twice, and stop."""
        drain = asyncio.create_task(self.service.drain())
        while not drain.done() and not self.force_exit:
            await asyncio.wait([drain], timeout=0.1)
        drain.cancel()
        await super().shutdown(sockets)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        BundleError: If a bundle can't be used, there are no bundles, or the default one is missing.
        CameraStoreError: If the database of cameras can't be used.
        KeyFileError: If the API keys can't be read.
        SiteError: If the file of streams and sinks can't be used.
        TracesError: If traces can't be exported.
        EngineError: If a model can't be compiled or run.
        OSError: If the server can't listen on its address.
    """
    limit_arenas()
    # The threads of OpenCV look for work long after a call, and give way hundreds of times a frame to those of the
    # networks, which do the same. Its work on a frame is too small to share.
    cv2.setNumThreads(1)
    signal.signal(signal.SIGTERM, _exit)  # uvicorn handles it while it runs, and raises it again once it has stopped
    signal.signal(signal.SIGINT, _exit)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server has started, there is nothing to reload
    raise_file_limit()
    server = Server(settings)
    server.run()
    if server.service.failure:
        raise server.service.failure


def _exit(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    sys.exit(0)
