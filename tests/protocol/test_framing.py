import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keywarp.protocol import FrameHeader, FramingError, pack, unpack
from keywarp.protocol.framing import MAX_HEADER_BYTES

headers = st.builds(
    FrameHeader,
    id=st.none() | st.integers() | st.text(max_size=128),
    timestamp=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@given(headers, st.binary(max_size=1000))
def test_unpacking_restores_the_header_and_the_payload(header: FrameHeader, payload: bytes) -> None:
    unpacked, data = unpack(pack(header, payload))
    assert unpacked == header
    assert bytes(data) == payload


@given(st.binary(max_size=200))
def test_any_bytes_are_unpacked_or_raise_a_framing_error(message: bytes) -> None:
    try:
        _, payload = unpack(message)
    except FramingError:
        return
    assert message.endswith(bytes(payload))


def _message(head: bytes, length: int | None = None) -> bytes:
    return struct.pack("<I", len(head) if length is None else length) + head


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "at least 4 bytes"),
        (b"\x01\x00\x00", "at least 4 bytes"),
        (_message(b"{}", length=3), "ends after 2"),
        (_message(b"", length=0xFFFFFFFF), "4294967295 bytes"),
        (_message(b" " * (MAX_HEADER_BYTES + 1)), f"at most {MAX_HEADER_BYTES}"),
        (_message(b""), "not valid"),
        (_message(b"[]"), "not valid"),
        (_message(b'{"id": 1'), "not valid"),
        (_message(b"\xff\xfe"), "not valid"),
        (_message(b'{"id": 1, "extra": 2}'), "extra"),
        (_message(b'{"id": 1.5}'), "id"),
        (_message(b'{"timestamp": NaN}'), "not valid"),
        (_message(b'{"id": "' + b"x" * 129 + b'"}'), "id"),
    ],
)
def test_a_malformed_message_raises_a_framing_error_that_says_why(message: bytes, reason: str) -> None:
    with pytest.raises(FramingError, match=reason):
        unpack(message)


def test_the_payload_is_a_view_of_the_message() -> None:
    message = pack(FrameHeader(id=1), b"payload")
    assert unpack(message)[1].obj is message
