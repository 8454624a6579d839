"""The server process: uvicorn, told when to say that it listens and how to stop."""

import asyncio
import signal
import sys
from socket import socket
from types import FrameType
from typing import NoReturn

import uvicorn

from keywarp.server.app import create_app, service_of
from keywarp.server.settings import Settings


class Server(uvicorn.Server):
    """Finishes what the service has before it closes connections, and stops if the models can't be loaded."""

    def __init__(self, settings: Settings) -> None:
        """Prepare the application and the server.

        Raises:
            BundleError, KeyFileError, SiteError, TracesError: See `create_app`.
        """
        app = create_app(settings)
        self.service = service_of(app)
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                ws="websockets-sansio",
                ws_max_size=settings.max_message_bytes,
                ws_per_message_deflate=False,  # payloads are compressed already
                lifespan="on",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=5,
            )
        )

    @property
    def url(self) -> str:
        """Where it listens, once started."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Start, and say where.

        Raises:
            OSError: The address can't be listened on.
        """
        try:
            await super().startup(sockets)
        except SystemExit as error:  # uvicorn has logged why
            address = f"{self.config.host}:{self.config.port}"
            raise OSError(f"can't listen on {address}: choose another host or port") from error
        print(f"keywarp: listening on {self.url}", flush=True)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop."""
        return await super().on_tick(counter) or self.service.failure is not None

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Finish, unless SIGINT came twice, then stop."""
        drain = asyncio.create_task(self.service.drain())
        while not drain.done() and not self.force_exit:
            await asyncio.wait([drain], timeout=0.1)
        drain.cancel()
        await super().shutdown(sockets)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        BundleError: A bundle can't be used, there is none, or not the default one.
        KeyFileError: The API keys can't be read.
        SiteError: The file of streams and sinks can't be used.
        TracesError: Traces can't be exported.
        EngineError: A model can't be compiled or run.
        OSError: The address can't be listened on.
    """
    signal.signal(signal.SIGTERM, _exit)  # uvicorn handles it while it runs, and raises it again when it has stopped
    signal.signal(signal.SIGINT, _exit)
    server = Server(settings)
    server.run()
    if server.service.failure:
        raise server.service.failure


def _exit(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    sys.exit(0)
