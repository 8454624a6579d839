"""What people see of addresses.

Passwords in logs: https://github.com/blakeblackshear/frigate/issues/1431 and 5798 (one with an unescaped sign),
https://github.com/home-assistant/core/issues/42904, https://github.com/koush/scrypted/issues/2096; a passphrase in a
query: https://github.com/openfollowapp/openfollow/issues/128.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keywarp.protocol.addresses import hide_secrets, without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:wrong@127.0.0.1:9/v.mp4?token=abc#x", "http://127.0.0.1:9/v.mp4"),
        ("rtsp://camera.local/stream1", "rtsp://camera.local/stream1"),
        ("rtsp://admin@[fe80::1]:554/x", "rtsp://[fe80::1]:554/x"),
        ("srt://host:9000?passphrase=secret", "srt://host:9000"),
        # logins in the path, as some cameras want them
        ("rtsp://10.0.0.1/user=admin&password=12&channel=1", "rtsp://10.0.0.1/user=***&password=***&channel=1"),
        ("rtsp://10.0.0.1/user=admin_password=12_channel=1.sdp", "rtsp://10.0.0.1/user=***"),
        # signs that should have been escaped: where the password ends can't be known
        ("rtsp://hass:Wel#come@1.2.3.4/x", "rtsp://***"),
        ("rtsp://hass:12#34@1.2.3.4/x", "rtsp://***"),
        ("rtsp://hass:pa/ss@1.2.3.4/x", "rtsp://***"),
        ("rtsp://hass:12?34@1.2.3.4/x", "rtsp://***"),
        ("rtsp://hass:pa@ss@1.2.3.4/x", "rtsp://***"),
        ("http://[broken", "http://***"),
        ("https://example.com/@user/film", "https://example.com/@user/film"),
        ("street.mp4", "street.mp4"),
        ("2026-11-29T10:00:00.mp4", "2026-11-29T10:00:00.mp4"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


def test_every_address_in_a_text_is_shown_without_its_secrets() -> None:
    text = "'rtsp://a:secret@h/x?key=secret' isn't there, \"http://u:se'secret@h/y\" neither (https://b:secret@h/z)."
    assert hide_secrets(text) == "'rtsp://h/x' isn't there, \"http://h/y\" neither (https://h/z)."


@given(st.text(alphabet=st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=12))
def test_no_password_is_shown_whatever_is_in_it(password: str) -> None:
    marked = f"{password}SECRET"
    assert "SECRET" not in without_secrets(f"rtsp://user:{marked}@camera/stream")


@given(st.text(max_size=40))
def test_any_text_is_accepted(text: str) -> None:
    without_secrets(text)
    hide_secrets(f"rtsp://{text}")
