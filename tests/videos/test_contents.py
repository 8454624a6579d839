import pytest

from keywarp.videos import HEAD_BYTES, describe_container, describe_other
from tests.videos.films import film
from tests.videos.others import OTHERS


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_video_is_known_by_its_beginning(name: str) -> None:
    data, said = OTHERS[name]
    assert said in str(describe_other(data[:HEAD_BYTES]))


@pytest.mark.parametrize(
    ("form", "said"), [("mp4", "MP4"), ("matroska", "Matroska"), ("avi", "AVI"), ("flv", "FLV"), ("mpegts", None)]
)
def test_a_video_is_taken_for_nothing_else(form: str, said: str | None) -> None:
    head = film(form)[:HEAD_BYTES]
    assert describe_other(head) is None
    assert said is None or said in str(describe_container(head))


def test_a_text_may_be_cut_inside_a_letter() -> None:
    assert describe_other("ä".encode() * 10 + b"\xc3") == "is text, not a video"
    assert describe_other(b"\xc3\x28" * 40) is None
