"""Find the cameras of the local network that speak ONVIF, and ask them for the addresses of their videos.

    for camera in discover(timeout=3.0):
        print(camera.name, await describe(camera.service, Login("admin", "..."), seconds=10.0))

WS-Discovery is one message by UDP, and the rest is a handful of calls by SOAP, so neither needs a library of its own.
What cameras send is taken as if an attacker had sent it: it is bounded in size and time, its XML has no entities, and
nothing is sent to another address than the camera's because the camera says so.
"""

from keywarp.onvif.device import Description, Login, Profile, check, describe
from keywarp.onvif.discovery import DEVICE_SERVICE, PORT, Camera, discover, probe, resolve
from keywarp.onvif.errors import (
    BadResponseError,
    DiscoveryError,
    OnvifError,
    RefusedError,
    UnauthorizedError,
    UnreachableError,
)

__all__ = [
    "DEVICE_SERVICE",
    "PORT",
    "BadResponseError",
    "Camera",
    "Description",
    "DiscoveryError",
    "Login",
    "OnvifError",
    "Profile",
    "RefusedError",
    "UnauthorizedError",
    "UnreachableError",
    "check",
    "describe",
    "discover",
    "probe",
    "resolve",
]
