"""Leave the secrets of addresses out of what people see: sentences, logs and tracebacks."""

import re
from typing import Final
from urllib.parse import urlsplit

_SCHEME: Final = r"[a-zA-Z][a-zA-Z0-9+.-]*://"
_ADDRESS: Final = re.compile(rf"""(?P<quote>["'])(?P<quoted>{_SCHEME}\S*?)(?P=quote)|{_SCHEME}[^\s'"<>]+""")
# Some cameras take the login in the path: rtsp://host/user=admin&password=1234&channel=1
_IN_PATH: Final = re.compile(
    r"(?i)((?:user(?:name)?|pass(?:word|wd|phrase)?|pwd|token|secret|auth|(?:api_?)?key|sig(?:nature)?)=)[^&/;]*"
)


def without_secrets(address: str) -> str:
    """Return an address without its user, password, query and fragment, for people to see.

    Of an address that can't be taken apart safely, such as one with an `@` or `/` in its password, only the scheme is
    left. What has no scheme is returned as it is.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    hidden = f"{scheme}://***"
    try:
        parts = urlsplit(address)
        _ = parts.port  # it is checked only when it is read
    except ValueError:
        return hidden
    netloc = parts.netloc.rpartition("@")[2]
    # In user:12/34@host or user:1@2@host, a part of the password stands where the host or path would.
    beyond = rest[len(parts.netloc) :]
    if parts.netloc.count("@") > 1 or ("@" in beyond and ":" in parts.netloc):
        return hidden
    path = _IN_PATH.sub(r"\1***", parts.path)
    return parts._replace(netloc=netloc, path=path, query="", fragment="").geturl()


def hide_secrets(text: str) -> str:
    """Return a text in which all addresses are without their secrets."""
    return _ADDRESS.sub(_without_secrets, text) if "://" in text else text


def _without_secrets(found: re.Match[str]) -> str:
    quote = found["quote"] or ""
    return quote + without_secrets(found["quoted"] or found[0]) + quote
