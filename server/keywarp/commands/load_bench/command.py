"""The command `keywarp bench load`."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import httpx
import typer
from rich.console import Console

from keywarp.cli.errors import CommandError
from keywarp.cli.options import IntervalOption, MaxAgeOption, OverlapOption
from keywarp.commands.bench_tables import print_json
from keywarp.commands.load_generator import BenchCodec
from keywarp.commands.local_server import local_server
from keywarp.commands.options import MODELS, InputVideoOption, JsonOption, ModelOption, ModelsOption
from keywarp.commands.sample_video import sample_video
from keywarp.protocol import MAX_INTERVAL, Hello, Mode, StreamOptions

if TYPE_CHECKING:
    from keywarp.commands.load_bench.objective import Objective
    from keywarp.commands.load_bench.step import Step

Over = Literal["websocket", "rest"]
WIDTH = 150  # characters of the table
TRIES = 3  # of a step in which the generator is late
UNLIMITED = ("--max-wait", "0", "--max-streams", "4096", "--max-connections", "8192")  # so that latency is the limit


def load(
    cameras: Annotated[
        int, typer.Option(min=1, help="The number of streams at the same time; with --ramp, the number to begin with.")
    ] = 4,
    fps: Annotated[float, typer.Option(min=0.1, help="Frames per second of each camera.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long a step counts frames, in seconds.")] = 20.0,
    warm_up: Annotated[float, typer.Option(min=0.0, help="How long a step sends before that, in seconds.")] = 2.0,
    ramp: Annotated[
        bool, typer.Option("--ramp", help="Find the largest number of cameras that meets the objective.")
    ] = False,
    objective: Annotated[
        str, typer.Option(help="What counts as good enough, with --ramp.", metavar="pN=TIME,lost=SHARE%")
    ] = "p99=200ms,lost=1%",
    repeats: Annotated[int, typer.Option(min=1, help="How often --ramp measures the limit; the majority decides.")] = 3,
    against_interval: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_INTERVAL,
            help="Measure another key interval too, in turns on the same server; 1 is the network on every frame.",
            show_default=False,
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--server", help="A running server.", metavar="URL", show_default="one started on this machine"),
    ] = None,
    model: ModelOption = "street",
    models: ModelsOption = MODELS,
    video: InputVideoOption = None,
    interval: IntervalOption = None,
    max_age: MaxAgeOption = None,
    overlap: OverlapOption = None,
    over: Annotated[Over, typer.Option(help="How frames are sent; REST sends images.")] = "websocket",
    codec: Annotated[BenchCodec, typer.Option(help="Send JPEG images, or the video's H.264 packets.")] = "image",
    size: Annotated[
        str | None,
        typer.Option(
            help="Scale frames to this size, and encode H.264 as cameras do.",
            metavar="WIDTHxHEIGHT",
            show_default="as they are stored",
        ),
    ] = None,
    mode: Annotated[Mode, typer.Option(help="The streams' mode.")] = "latest",
    picture: Annotated[
        Path | None, typer.Option(help="Draw the latencies, a PNG.", metavar="FILE", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Load a server with cameras, each of which sends a frame when it is due, however busy the server is.

    Prints the latency, counted from when each frame was due, by kind of frame,
    the share and age of key frames, lost frames by reason, and the processor
    time of server and generator. A frame that the server has no room for is
    lost. With --ramp, finds how many cameras the server can take. A step that
    misses the objective while the generator itself is late is tried up to three
    times. If it is late each time, it counts as a miss, and the limit may be higher.

    Example: keywarp bench load --ramp --objective p99=200ms --codec h264 --size 640x360 --against-interval 1
    """
    from keywarp.commands.engine_bench.machine import describe_machine
    from keywarp.commands.load_bench.footage import make_footage
    from keywarp.commands.load_bench.objective import Objective
    from keywarp.commands.load_bench.report import describe_interval, draw, print_step, print_steps
    from keywarp.commands.load_bench.step import middle

    if over == "rest" and codec != "image":
        raise typer.BadParameter("REST takes images only", param_hint="--codec")
    try:
        wanted = Objective.parse(objective)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--objective") from error
    path = video or sample_video()
    payloads = make_footage(path, codec, _parse_size(size), fps)
    options = Hello(model=model, interval=interval, max_age=max_age, overlap=overlap, mode=mode, codec=codec)
    with _server(url, models) as address:
        bench = _Bench(address, over, options, payloads, fps, warm_up, seconds, local=url is None)
        intervals = [interval] if against_interval is None else [interval, against_interval]
        asyncio.run(bench.warm_up())
        limits: dict[int | None, int] = {}
        if ramp:
            limits = asyncio.run(bench.ramp(intervals, cameras, repeats, wanted))
        else:
            for one in intervals:
                asyncio.run(bench.measure(cameras, one))
    steps = bench.steps
    if not any(step.tally.results for step in steps):
        reason = next((step.refused for step in steps if step.refused), "it may be full, or too slow for its streams")
        raise CommandError(f"the server returned no result: {reason}")
    at_limit: dict[str, Step] = {}
    for one in intervals:
        number = limits.get(one, cameras)
        if found := [step for step in steps if step.interval == one and step.cameras == number and step.tally.results]:
            at_limit[describe_interval(one)] = middle(found)
    if picture:
        series = {describe_interval(one): [step for step in steps if step.interval == one] for one in intervals}
        draw(series, at_limit, wanted if ramp else None).save(picture)
    setting = {
        "model": model,
        "codec": codec,
        "over": over,
        "mode": mode,
        "fps": fps,
        "size": size,
        "seconds": seconds,
        "video": path.name,
    }
    ratio = _ratio(limits, interval, against_interval)
    if as_json:
        found_limits: dict[str, Any] = {
            "objective": str(wanted),
            "limits": [{"interval": one, "cameras": number} for one, number in limits.items()],
            "ratio": ratio,
            "limited_by_generator": bench.generator_failed,
        }
        print_json(
            {
                "setting": setting,
                "machine": asdict(describe_machine()) if url is None else None,
                **(found_limits if ramp else {}),
                "steps": [step.as_dict() for step in steps],
            }
        )
        return
    console = Console(width=max(WIDTH, Console().width))
    print_steps(console, steps)
    for step in at_limit.values():
        print_step(console, step)
    for one, number in limits.items():
        console.print(f"{describe_interval(one)}: {number} cameras with {wanted}", highlight=False)
    if ratio:
        console.print(f"ratio: {ratio:.2f}")
    if bench.generator_failed:
        console.print("The generator was late, so that the limit may be higher: run it on another machine (--server).")
    console.print(", ".join(f"{name} {value}" for name, value in setting.items()), style="dim")


class _Bench:
    """Measures steps on one server."""

    def __init__(
        self,
        server: str,
        over: Over,
        options: Hello,
        payloads: list[bytes],
        fps: float,
        warm_up: float,
        seconds: float,
        *,
        local: bool,
    ) -> None:
        self._server = server
        self._over = over
        self._options = options
        self._payloads = payloads
        self._fps = fps
        self._warm_up = warm_up
        self._seconds = seconds
        self._local = local
        self._run = secrets.token_hex(3)  # streams of different runs have different ids
        self.steps: list[Step] = []
        self.generator_failed = False

    async def warm_up(self) -> None:
        """Let the server compile its networks for the size of the frames, on every lane."""
        await self._step(4, self._options.interval, 1.0)
        self.steps.clear()

    async def measure(self, cameras: int, interval: int | None) -> None:
        """Measure one number of cameras."""
        await self._step(cameras, interval, self._seconds)

    async def ramp(
        self, intervals: list[int | None], first: int, repeats: int, objective: "Objective"
    ) -> dict[int | None, int]:
        """Find the largest number of cameras for each interval, in turns."""
        from keywarp.commands.load_bench.ramp import Ramp
        from keywarp.commands.load_bench.report import describe_step

        ramps = {interval: Ramp(first, repeats) for interval in intervals}
        open_ones = dict(ramps)
        console = Console(stderr=True)
        while open_ones:
            for interval, ramp in [*open_ones.items()]:
                if (number := ramp.next()) is None:
                    del open_ones[interval]
                    continue
                for _ in range(TRIES):
                    await self._step(number, interval, self._seconds)
                    step = self.steps[-1]
                    console.print(describe_step(step, objective), style="dim", highlight=False)
                    missed = bool(step.refused) or bool(objective.misses(step.tally))
                    if not missed or not step.is_late(objective.tightest):
                        break
                else:  # the server isn't known to be at fault, but nothing more can be found out here
                    self.generator_failed = True
                ramp.add(number, not missed)
        return {interval: ramp.limit for interval, ramp in ramps.items()}

    async def _step(self, cameras: int, interval: int | None, seconds: float) -> None:
        from keywarp.commands.load_bench.cameras import Camera, RestCamera, WebSocketCamera
        from keywarp.commands.load_bench.step import run_step
        from keywarp.commands.load_bench.tally import Tally

        options = self._options.model_copy(update={"interval": interval})
        number_of_step = len(self.steps)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        try:
            http = httpx.AsyncClient(base_url=self._server, limits=limits, timeout=30, trust_env=False)
        except httpx.InvalidURL as error:
            raise CommandError(f"can't connect to {self._server!r}: {error}") from error
        async with http:

            def open_camera(number: int, tally: Tally) -> Camera:
                stream = f"load-{self._run}-{number_of_step}-{number}"
                if self._over == "rest":
                    created = StreamOptions.model_validate(
                        options.model_dump(include=set(StreamOptions.model_fields) - {"resumed"})
                    )
                    return RestCamera(http, stream, created, self._payloads, tally)
                return WebSocketCamera(self._server, stream, options, self._payloads, tally)

            step = await run_step(
                open_camera,
                http,
                cameras=cameras,
                interval=interval,
                fps=self._fps,
                warm_up=self._warm_up,
                seconds=seconds,
                local=self._local,
            )
        self.steps.append(step)


@contextmanager
def _server(url: str | None, models: Path) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with local_server(models, *UNLIMITED) as address:
        yield address


def _parse_size(size: str | None) -> tuple[int, int] | None:
    if size is None:
        return None
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 16):
        raise typer.BadParameter(f"{size!r} is not like 640x360", param_hint="--size")
    if int(width) % 2 or int(height) % 2:
        raise typer.BadParameter(f"{size!r} must have even numbers", param_hint="--size")
    return int(width), int(height)


def _ratio(limits: dict[int | None, int], interval: int | None, against: int | None) -> float | None:
    """Return how many times as many cameras the first interval takes."""
    if against is None or not limits.get(against):
        return None
    return limits[interval] / limits[against]
