"""Read the site file and the API keys again while the server runs, and apply what changed."""

import asyncio
import logging

from keywarp.protocol import Changes, Reloaded
from keywarp.server.cameras import Cameras
from keywarp.server.errors import KeyFileError, ReloadError, SiteError
from keywarp.server.security.keys import read_keys
from keywarp.server.service import Service
from keywarp.server.site import read_site

log = logging.getLogger(__name__)


class Reloader:
    """Applies the operator's files, one reload at a time."""

    def __init__(self, service: Service, cameras: Cameras) -> None:
        self._service = service
        self._cameras = cameras
        self._lock = asyncio.Lock()

    async def reload(self) -> Reloaded:
        """Read the files, and apply what changed. Cameras, sinks and keys that didn't change aren't disturbed.

        Raises:
            ReloadError: A file can't be used. Nothing has changed.
            DrainingError, NotReadyError, InternalError: The server isn't ready.
        """
        async with self._lock:
            self._service.check_ready()
            settings = self._service.settings
            try:
                site = await asyncio.to_thread(read_site, settings.site)
                keys = await asyncio.to_thread(read_keys, settings.keys) if settings.keys else None
                old = self._service.site.sinks
                opened = site.open_sinks({name for name, sink in site.sinks.items() if sink != old.get(name)})
            except (SiteError, KeyFileError) as error:
                log.error("nothing was reloaded: %s", error)
                raise ReloadError(str(error)) from error
            sinks = Changes.between(old, site.sinks)
            await self._service.sinks.replace(opened)
            for name in opened:
                self._service.metrics.add_sink(name)
            self._service.site = site
            for stream in self._service.streams:
                if not opened.keys().isdisjoint(stream.rules.events):  # which have to be announced to the new sinks
                    await self._service.watch_stream(stream, stream.rules)
            streams, failed = await self._cameras.apply(site.streams)
            await self._service.sinks.replace(dict.fromkeys(sinks.removed))
            changed_keys = self._service.api_keys.replace(keys) if self._service.api_keys and keys else Changes()
            reloaded = Reloaded(streams=streams, sinks=sinks, keys=changed_keys, failed=failed)
            log.info("reloaded: %s", reloaded.model_dump_json(exclude_defaults=True))
            return reloaded

    async def reload_and_log(self) -> None:
        """Do the same for a signal, whose sender reads the log."""
        try:
            await self.reload()
        except ReloadError:
            pass  # it has been logged
        except Exception:
            log.exception("nothing was reloaded")
