"""`keywarp cameras`: the cameras of the local network."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Final
from urllib.parse import quote, urlsplit

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from keywarp import onvif
from keywarp.cli.errors import CommandError
from keywarp.cli.options import JsonOption

PASSWORD_VARIABLE: Final = "KEYWARP_CAMERA_PASSWORD"
RESPONSE_SECONDS: Final = 15.0  # for all questions to one camera together

app = typer.Typer(help="Find cameras in the local network.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def cameras() -> None:
    """Make a group of the one command."""


@dataclass(frozen=True)
class _Found:
    camera: onvif.Camera
    description: onvif.Description | None = None
    problem: str | None = None


@app.command()
def discover(
    address: Annotated[
        str | None,
        typer.Option(
            help="Ask only the camera at this address, also in another network. If it doesn't use port 80, add the "
            "port: HOST:PORT.",
            metavar="HOST",
            show_default=False,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            help="Ask each camera as this user for its videos. The password is read from the environment variable "
            f"{PASSWORD_VARIABLE}, else asked for. A search for all sends a proof of it to all cameras that answer.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=60.0, help="Seconds to wait for answers.")] = 3.0,
    as_json: JsonOption = False,
) -> None:
    """Find cameras that speak ONVIF, and print the lines for them of a site file.

    Example: keywarp cameras discover

    Example: keywarp cameras discover --address 192.168.7.20 --user admin
    """
    login = None if user is None else onvif.Login(user, _password())
    try:
        searched = onvif.discover(timeout) if address is None else [asyncio.run(_find(address, timeout))]
    except onvif.DiscoveryError as error:
        raise CommandError(str(error)) from error
    if not searched:
        raise CommandError(
            f"no camera answered within {timeout:g} s: ONVIF may be switched off in the cameras, or they are in "
            "another network (then name one with --address)"
        )
    found = asyncio.run(_describe_all(searched, login))
    if as_json:
        typer.echo(json.dumps([_to_json(one) for one in found], indent=2))
    else:
        _print_tables(found)
        if user is not None:
            _print_site_file(found, user)
    for one in found:
        if one.problem:
            typer.echo(f"keywarp: {one.camera.address}: {one.problem}", err=True)
    if any(one.problem for one in found):
        raise typer.Exit(1)


def _password() -> str:
    """Take the password from the environment, or ask for it.

    Raises:
        CommandError: If there is neither.
    """
    password = os.environ.get(PASSWORD_VARIABLE)
    if password is None:
        if not sys.stdin.isatty():
            raise CommandError(f"--user needs a password: set the environment variable {PASSWORD_VARIABLE}")
        password = str(typer.prompt("Password", hide_input=True, err=True))
    return password


async def _find(address: str, seconds: float) -> onvif.Camera:
    """Find the camera at an address: by UDP, which tells its name, or else by HTTP.

    Raises:
        CommandError: If there is none.
    """
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if parts.netloc != address or "@" in address or not host:
        raise typer.BadParameter("write HOST or HOST:PORT, without a path", param_hint="--address")
    try:
        numbers = onvif.resolve(host)
        camera = None if port else onvif.probe(numbers, seconds)
        if camera is None:
            service = f"http://{numbers}{f':{port}' if port else ''}{onvif.DEVICE_SERVICE}"
            await onvif.check(service, RESPONSE_SECONDS)
            camera = onvif.Camera(numbers, service)
    except onvif.OnvifError as error:
        raise CommandError(f"{address}: {error}") from error
    return camera


async def _describe_all(cameras: Iterable[onvif.Camera], login: onvif.Login | None) -> list[_Found]:
    """Ask all cameras at once."""

    async def describe(camera: onvif.Camera) -> _Found:
        if login is None:
            return _Found(camera)
        try:
            return _Found(camera, await onvif.describe(camera.service, login, RESPONSE_SECONDS))
        except onvif.OnvifError as error:
            return _Found(camera, problem=str(error))

    return list(await asyncio.gather(*map(describe, cameras)))


def _to_json(one: _Found) -> dict[str, object]:
    """Everything that is known of a camera. What isn't known is left out."""
    facts = asdict(one.camera) | (asdict(one.description) if one.description else {}) | {"problem": one.problem}
    return {name: fact for name, fact in facts.items() if fact not in ("", None)}


def _print_tables(found: list[_Found]) -> None:
    table = Table("name", "address", "hardware")
    for one in found:
        table.add_row(*map(escape, (_name(one), urlsplit(one.camera.service).netloc, _hardware(one))))
    console = Console()
    console.print(table)
    profiles = [(one, profile) for one in found if one.description for profile in one.description.profiles]
    if profiles:
        videos = Table("camera", "profile", "size", "fps", "codec")
        videos.add_column("source", overflow="fold")
        for one, profile in profiles:
            size = f"{profile.width} x {profile.height}" if profile.width and profile.height else ""
            fps = "" if profile.fps is None else str(profile.fps)
            videos.add_row(*map(escape, (_name(one), profile.name, size, fps, profile.codec, profile.source)))
        console.print(videos)


def _print_site_file(found: list[_Found], user: str) -> None:
    """Print each camera's part of the site file, with its first video, and the others as comments."""
    names: set[str] = set()
    for one in found:
        if one.description and one.description.profiles:
            typer.echo(f"\n[streams.{_stream_name(_name(one), names)}]")
            for index, profile in enumerate(one.description.profiles):
                parts = urlsplit(profile.source)
                url = parts._replace(netloc=f"{quote(user, safe='')}:PASSWORD@{parts.netloc}").geturl()
                told = [
                    f"{profile.width} x {profile.height}" if profile.width and profile.height else "",
                    profile.codec,
                ]
                # A string of JSON is one of TOML: what can't be printed has been removed.
                line = (
                    f"source = {json.dumps(url, ensure_ascii=False)}  # {', '.join(filter(None, told)) or profile.name}"
                )
                typer.echo(f"# {line}" if index else line)


def _name(one: _Found) -> str:
    return one.camera.name or (one.description.model if one.description else "") or one.camera.address


def _hardware(one: _Found) -> str:
    described = f"{one.description.manufacturer} {one.description.model}".strip() if one.description else ""
    return described or one.camera.hardware


def _stream_name(name: str, taken: set[str]) -> str:
    """Make a name that a stream can have, and that no other has: `Front door` becomes `front-door`."""
    base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50] or "camera"
    free = base
    number = 1
    while free in taken:
        number += 1
        free = f"{base}-{number}"
    taken.add(free)
    return free
