"""`keywarp ray`: the server and videos in bulk on a Ray cluster, or on a Ray of their own on this machine."""

import signal
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from keywarp.cli.errors import CommandError
from keywarp.cli.result_files import ResultFiles
from keywarp.commands.serve import ConfigOption, choose_settings, warn_if_open, with_settings

app = typer.Typer(help="Serve on Ray Serve, and process videos in bulk on Ray Data.", no_args_is_help=True)

AddressOption = Annotated[
    str,
    typer.Option(
        help="The Ray cluster to use: HOST:PORT, auto for the one that this machine belongs to, or local to start Ray "
        "on this machine until the command ends.",
        envvar="RAY_ADDRESS",
    ),
]


FolderOption = Annotated[
    Path | None,
    typer.Option(help="A folder for these files, as of `keywarp run`.", metavar="FOLDER", show_default=False),
]


@app.callback()
def check_installed() -> None:
    """Serve on Ray Serve, and process videos in bulk on Ray Data."""
    if find_spec("ray") is None:
        raise CommandError("Ray isn't installed: install the extra `ray` (README, Install)")


@app.command()
@with_settings
def serve(
    context: typer.Context,
    config: ConfigOption = None,
    address: AddressOption = "local",
    replicas: Annotated[
        str,
        typer.Option(
            help="The number of replicas, or the fewest and the most, such as 2:8.", metavar="NUMBER[:NUMBER]"
        ),
    ] = "1",
    replica_streams: Annotated[
        float,
        typer.Option(
            help="The streams, uploads and watchers of a replica for which replicas are added and removed.", min=0.1
        ),
    ] = 8,
    replica_cpus: Annotated[float, typer.Option(help="The cores that a replica reserves.", min=0.01)] = 1,
    replica_gpus: Annotated[float, typer.Option(help="The GPUs that a replica reserves.", min=0)] = 0,
    **settings: Any,
) -> None:
    """Serve as `keywarp serve` does, with several replicas on a Ray cluster: docs/scale.md says when to choose this.

    Each stream has one replica, which the hash of its id chooses. When a replica dies, others go on with its streams.
    Folders and files that options name must be the same on every node of the cluster.

    Example: keywarp ray serve --replicas 3 --port 8080

    Example: keywarp ray serve --address auto --replicas 2:8 --replica-gpus 1 --host 0.0.0.0 --keys keys.txt
    """
    chosen = choose_settings(context, settings, config)
    if chosen.port == 0:
        raise typer.BadParameter("Ray Serve needs the number of a port", param_hint="--port")
    fewest, most = _read_range(replicas)

    from keywarp.cluster.deployment import Options, Scale  # imports Ray, which takes a second
    from keywarp.cluster.running import connected, served
    from keywarp.server.telemetry.logs import log_to_stderr

    log_to_stderr(chosen.log_level)
    warn_if_open(chosen)
    scale = Scale(min_replicas=fewest, max_replicas=most, streams=replica_streams, cpus=replica_cpus, gpus=replica_gpus)
    options = Options(settings=chosen, scale=scale, log_level=chosen.log_level)
    with connected(address), served(options) as url:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())  # only now, because Ray sets handlers of its own
        print(f"keywarp: listening on {url}", flush=True)
        stop.wait()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(help="A folder of videos, or a file with a path or URL a line.", exists=True)
    ],
    address: AddressOption = "local",
    out: FolderOption = None,
    ndjson: FolderOption = None,
    coco: FolderOption = None,
    mot: FolderOption = None,
    parquet: FolderOption = None,
    video_cpus: Annotated[float, typer.Option(help="The cores that a video reserves.", min=0.01)] = 1,
    video_gpus: Annotated[float, typer.Option(help="The GPUs that a video reserves.", min=0)] = 0,
) -> None:
    """Process many videos on a Ray cluster, each once, with the options and the files of `keywarp run`.

    Videos whose files are all there are skipped, so the same command again does what is left. A broken one doesn't
    stop the others: it is named at the end, and the exit status is 1. Videos and folders of results must have the
    same paths on every node.

    Example: keywarp ray run videos --model street-detect --ndjson results

    Example: keywarp ray run videos.txt --address auto --model street-detect --parquet /mnt/results --video-gpus 1
    """
    files = ResultFiles(out, ndjson, coco, mot, parquet)
    if not [*files]:
        raise typer.BadParameter("name a folder for results, such as --ndjson results")

    from keywarp.cluster.running import connected  # imports Ray, which takes a second
    from keywarp.cluster.videos import list_videos, plan, process

    planned = plan(list_videos(source), files.check_folders())
    left = {video: its for video, its in planned.items() if not its.are_complete}
    failed: list[str] = []
    if left:
        with connected(address):
            for number, one in enumerate(process(left, context.args, video_cpus, video_gpus), 1):
                print(f"{number} of {len(left)}: {one['video']}: {one['error'] or 'done'}", flush=True)
                failed += [one["video"]] if one["error"] else []
    print(f"{len(left) - len(failed)} done, {len(planned) - len(left)} skipped, {len(failed)} failed")
    if failed:
        names = ", ".join(failed)
        raise CommandError(f"{len(failed)} of {len(planned)} videos failed: {names}. The same command tries them again")


def _read_range(text: str) -> tuple[int, int]:
    fewest, colon, most = text.partition(":")
    if not fewest.isdecimal() or (colon and not most.isdecimal()):
        raise typer.BadParameter(f"{text!r} is not like 3 or 2:8", param_hint="--replicas")
    numbers = int(fewest), int(most or fewest)
    if not 1 <= numbers[0] <= numbers[1]:
        raise typer.BadParameter(f"{text!r} isn't a number from 1 on, or a range of them", param_hint="--replicas")
    return numbers
