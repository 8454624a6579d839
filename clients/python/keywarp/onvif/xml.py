"""Reading XML that anyone in the network may have sent."""

from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from keywarp.onvif.errors import BadResponseError

MAX_TEXT = 1024  # characters of a name or an address


def parse(data: bytes) -> Element:
    """Parse a message.

    SOAP has no document types, so a message with one is refused: entities, whether they expand or name files, need it.

    Raises:
        BadResponseError: If it isn't well-formed XML, or has a document type.
    """
    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:  # the last two: encodings, and what defusedxml forbids
        raise BadResponseError("what it sent isn't XML as SOAP has it") from error
    return root


def text(element: Element | None, path: str) -> str:
    """Return the text of the first element at a path, `""` without one, cut, and without what isn't printable.

    Args:
        element: Where the path begins. None has nothing.
        path: Names, as ElementTree's `find` takes them; `{*}name` is a name in any namespace.
    """
    found = None if element is None else element.find(path)
    return "" if found is None else printable(found.text or "")


def printable(sent: str) -> str:
    """Remove line breaks and the characters by which a terminal can be controlled, and cut the text."""
    return "".join(character for character in sent.strip()[:MAX_TEXT] if character.isprintable())


def number(element: Element | None, path: str) -> int | None:
    """Return the whole number at a path, or None."""
    digits = text(element, path)
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
