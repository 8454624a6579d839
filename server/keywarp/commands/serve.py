"""`keywarp serve`: the server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from keywarp.commands.motion import MOTION_HELP, Motion
from keywarp.commands.runtime import BACKEND_HELP, FALLBACK_HELP, PRECISION_HELP
from keywarp.protocol import Schedule

if TYPE_CHECKING:
    from keywarp.engines import BackendName, Precision

MEBIBYTE = 2**20


def serve(
    models: Annotated[
        Path, typer.Option(help="The folder that holds the bundles, or one bundle.", envvar="KEYWARP_MODELS")
    ] = Path("models"),
    host: Annotated[str, typer.Option(help="The address to listen on.", envvar="KEYWARP_HOST")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0: any free one.", envvar="KEYWARP_PORT")
    ] = 8080,
    default_model: Annotated[
        str | None,
        typer.Option(
            help="For streams that name none.", envvar="KEYWARP_DEFAULT_MODEL", show_default="the first by name"
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help=BACKEND_HELP, envvar="KEYWARP_BACKEND")] = "auto",
    precision: Annotated[str, typer.Option(help=PRECISION_HELP, envvar="KEYWARP_PRECISION")] = "auto",
    cpu_fallback: Annotated[
        bool, typer.Option("--cpu-fallback", help=FALLBACK_HELP, envvar="KEYWARP_CPU_FALLBACK")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=0, help="Of the inference; 0: the backend decides.", envvar="KEYWARP_THREADS")
    ] = 0,
    decoder: Annotated[
        Literal["software", "nvdec"],
        typer.Option(
            help="What decodes video: the processor, or the hardware of an NVIDIA GPU, where it has the codec.",
            envvar="KEYWARP_DECODER",
        ),
    ] = "software",
    motion: Annotated[Motion, typer.Option(help=MOTION_HELP, envvar="KEYWARP_MOTION")] = Motion.NETWORK,
    schedule: Annotated[
        Schedule,
        typer.Option(
            help="Of key frames, for streams that ask for none: fixed, or adaptive to the content.",
            envvar="KEYWARP_SCHEDULE",
        ),
    ] = "fixed",
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="A site whose web pages may use this server, such as https://cameras.example. May be repeated.",
            metavar="ORIGIN",
            envvar="KEYWARP_ALLOW_ORIGIN",
            show_default="none but its own",
        ),
    ] = None,
    allow_pull: Annotated[
        list[str] | None,
        typer.Option(
            help="Where streams may be pulled from: a host, an address, a network, each maybe with :PORT; *.DOMAIN. "
            "May be given several times.",
            metavar="HOST",
            envvar="KEYWARP_ALLOW_PULL",
            show_default="nowhere",
        ),
    ] = None,
    site: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file of cameras to pull from the start, and of where results go: files, webhooks, MQTT.",
            envvar="KEYWARP_SITE",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            help="The file of API keys (`keywarp keys add`); without one, whoever reaches the server may use it.",
            envvar="KEYWARP_KEYS",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    model_control: Annotated[
        bool,
        typer.Option(
            "--model-control",
            help="Without --keys: let whoever reaches the server load and unload the folder's models while it runs.",
            envvar="KEYWARP_MODEL_CONTROL",
        ),
    ] = False,
    max_streams: Annotated[int, typer.Option(min=1, help="Streams at once.", envvar="KEYWARP_MAX_STREAMS")] = 64,
    model_limit: Annotated[
        list[str] | None,
        typer.Option(
            help="Streams of one model at once; may be repeated.",
            metavar="MODEL=STREAMS",
            envvar="KEYWARP_MODEL_LIMIT",
            show_default=False,
        ),
    ] = None,
    key_streams: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Streams at once of each API key that has no such limit of its own.",
            envvar="KEYWARP_KEY_STREAMS",
            show_default="no limit",
        ),
    ] = None,
    key_rate: Annotated[
        float | None,
        typer.Option(
            help="Frames a second of each API key that has no such limit of its own.",
            envvar="KEYWARP_KEY_RATE",
            show_default="no limit",
        ),
    ] = None,
    max_wait: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds that streams may mostly wait for their turn on the device; beyond it no new ones are taken. "
            "0: always.",
            envvar="KEYWARP_MAX_WAIT",
        ),
    ] = 1.0,
    max_message: Annotated[
        int, typer.Option(min=1, help="MiB of one WebSocket message or REST body.", envvar="KEYWARP_MAX_MESSAGE")
    ] = 16,
    max_video: Annotated[
        int,
        typer.Option(min=1, help="MiB of one uploaded video.", envvar="KEYWARP_MAX_VIDEO"),
    ] = 16 * 1024,
    max_pixels: Annotated[
        int,
        typer.Option(min=1, help="Pixels of one frame.", envvar="KEYWARP_MAX_PIXELS"),
    ] = 4096 * 4096,
    credit: Annotated[
        int, typer.Option(min=1, help="Messages that a WebSocket client may be ahead.", envvar="KEYWARP_CREDIT")
    ] = 8,
    idle_timeout: Annotated[
        float, typer.Option(help="Seconds without a frame until a stream expires.", envvar="KEYWARP_IDLE_TIMEOUT")
    ] = 30.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.", envvar="KEYWARP_LOG_LEVEL")] = "info",
) -> None:
    """Serve the models of a folder over REST and WebSocket.

    Example: keywarp serve --models models --port 8080
    """
    import logging

    from pydantic import ValidationError

    from keywarp.engines import EngineError
    from keywarp.server import Settings, run
    from keywarp.server.errors import DecoderError, KeyFileError, SiteError, TracesError
    from keywarp.server.telemetry.traces import wants_traces

    try:
        settings = Settings(
            models=models,
            host=host,
            port=port,
            default_model=default_model,
            backend=cast("BackendName", backend),
            precision=cast("Precision", precision),
            cpu_fallback=cpu_fallback,
            threads=threads,
            decoder=decoder,
            motion=motion.value,
            schedule=schedule,
            allow_origin=tuple(allow_origin or ()),
            allow_pull=tuple(allow_pull or ()),
            site=site,
            traces=wants_traces(),
            keys=keys,
            model_control=model_control,
            max_streams=max_streams,
            model_limits=_limits(model_limit or []),
            key_streams=key_streams,
            key_rate=key_rate,
            max_wait=max_wait,
            max_video_bytes=max_video * MEBIBYTE,
            max_message_bytes=max_message * MEBIBYTE,
            max_pixels=max_pixels,
            credit=credit,
            idle_timeout=idle_timeout,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        raise typer.BadParameter(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    levels = logging.getLevelNamesMapping()
    if log_level.upper() not in levels:
        raise typer.BadParameter(f"no such level: {log_level!r}", param_hint="--log-level")
    logging.basicConfig(level=levels[log_level.upper()], format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if not keys and host not in ("127.0.0.1", "::1", "localhost"):
        logging.getLogger(__name__).warning("%s is open to whoever reaches it: consider --keys", host)
    try:
        run(settings)
    except (DecoderError, EngineError, KeyFileError, SiteError, TracesError, OSError) as error:
        typer.echo(f"keywarp serve: {error}", err=True)
        raise typer.Exit(1) from error


def _limits(options: list[str]) -> dict[str, int]:
    limits: dict[str, int] = {}
    for option in options:
        model, _, streams = option.partition("=")
        if not model or not streams.isdecimal():
            raise typer.BadParameter(f"{option!r} is not like street=8", param_hint="--model-limit")
        limits[model] = int(streams)
    return limits
