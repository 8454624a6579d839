"""The errors of asking cameras, which have one base class. Their text is one sentence, without a password.

OnvifError
├── UnreachableError       no camera responds at the address, or not in time
├── UnauthorizedError      the camera refuses the user and password
├── RefusedError           the camera refuses a request for another reason
├── BadResponseError       what responds isn't what ONVIF says: not XML, too much, or without what was asked for
└── DiscoveryError         no network interface can send a probe
"""


class OnvifError(Exception):
    """The base of all errors of this package."""


class UnreachableError(OnvifError):
    """No camera responds at the address, or not in time."""


class UnauthorizedError(OnvifError):
    """The camera refuses the user and password."""


class RefusedError(OnvifError):
    """The camera refuses a request for a reason other than the user and password."""


class BadResponseError(OnvifError):
    """What responds isn't what ONVIF says: it isn't XML, is too much, or lacks what was asked for."""


class DiscoveryError(OnvifError):
    """No network interface can send a probe."""
