"""What FFmpeg may use: its protocols and the formats that it detects, for each kind of source.

What isn't named here can't be reached by what a video claims to be, or says that it continues with: `concat`, `file`,
`subfile`, playlists in playlists. An empty list of protocols allows none: all bytes come from Python.
"""

from collections.abc import Mapping
from typing import Final

from keywarp.protocol import Container

UPLOAD_PROTOCOLS: Final = ""
UPLOAD_FORMATS: Final[Mapping[Container, str]] = {"mpegts": "mpegts", "mp4": "mp4", "webm": "webm"}

HTTP_PROTOCOLS: Final = ""  # `HttpFiles` opens each file, and checks where it is
HTTP_FORMATS: Final = (
    "hls,mpegts,mpeg,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,mpjpeg,mjpeg,h264,hevc,aac,mp3,webvtt"
)

LIVE_PROTOCOLS: Final[Mapping[str, str]] = {  # by the scheme of the URL
    "rtsp": "rtsp,rtp,tcp",
    "rtsps": "rtsp,rtp,tcp",  # the relay does TLS
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tcp,tls",
    "srt": "srt",
    "udp": "udp",
}
LIVE_FORMATS: Final[Mapping[str, str]] = {
    "rtsp": "rtsp",
    "rtsps": "rtsp",
    "rtmp": "flv",
    "rtmps": "flv",
    "srt": "mpegts",
    "udp": "mpegts",
}
