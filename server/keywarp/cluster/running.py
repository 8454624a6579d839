"""Ray itself: connecting to a cluster or starting one, and running the application on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray import serve
from ray.serve.config import HTTPOptions

from keywarp.cli.errors import CommandError
from keywarp.cluster.deployment import NAME, Options, application


@contextmanager
def connected(address: str, cpus: int | None = None) -> Iterator[None]:
    """Connect to a Ray cluster, or start one on this machine, until the block ends.

    Ray sends no figures about its usage anywhere, unless RAY_USAGE_STATS_ENABLED says so. A cluster that is started
    here has no dashboard, which would let anyone who reaches it run code.

    Args:
        address: The address of the cluster, `auto` for the one of this machine, or `local` to start one.
        cpus: The cores of a cluster that is started here, or None for as many as the machine has.

    Raises:
        CommandError: There is no cluster at this address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local = {"include_dashboard": False, "num_cpus": cpus}
    try:
        ray.init(address, **local if address == "local" else {})
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise CommandError(f"there is no Ray cluster at {address!r}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def served(options: Options) -> Iterator[str]:
    """Serve until the block ends, and give the URL of the proxy on this machine. All replicas are ready then.

    Raises:
        CommandError: The replicas can't start. The log says why.
    """
    settings = options.settings
    serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port))
    try:
        serve.run(application(options), name=NAME, route_prefix="/")
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield f"http://{host}:{settings.port}"
    except RuntimeError as error:
        raise CommandError(f"the replicas can't start: {error}") from error
    finally:
        serve.shutdown()
