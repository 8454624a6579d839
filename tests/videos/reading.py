"""Read videos as the client does."""

import io
from pathlib import Path

from keywarp.videos import Lost, Note, Picture, SoftwareDecoder, VideoError, VideoReader, choose_video, open_container
from tests.videos.films import FRAMES, number_of

LISTED = list(range(FRAMES))  # the numbers of the pictures of `film`


class Seen:
    """What the reader gave: the pictures, what it said about the others, and its error."""

    def __init__(self, data: bytes | Path, video: int | None = None, threads: int | None = 1) -> None:
        self.pictures: list[Picture] = []
        self.notes: list[str] = []
        self.places: list[int] = []  # of lost pictures: how many came before each
        self.error: str | None = None
        with open_container(str(data) if isinstance(data, Path) else io.BytesIO(data)) as container:
            stream = choose_video(container, video)
            reader = VideoReader(container, stream, SoftwareDecoder(stream.codec_context, threads=threads))
            try:
                for item in reader:
                    match item:
                        case Picture():
                            self.pictures.append(item)
                        case Lost():
                            self.places.append(len(self.pictures))
                        case Note(text):
                            self.notes.append(text)
            except VideoError as error:
                self.error = str(error)
        self.numbers = [number_of(picture.pixels) for picture in self.pictures]
        self.times = [picture.time for picture in self.pictures]
