# mypy: ignore-errors
"""An RTSP camera that shows a clip, by GStreamer: run by Debian's Python, which has its bindings.

python3 rtsp_server.py CLIP PORT: prints the port (0: any free one) once it listens.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

clip, port = sys.argv[1:]
Gst.init(None)
server = GstRtspServer.RTSPServer(service=port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f'( filesrc location="{clip}" ! qtdemux ! h264parse ! rtph264pay name=pay0 config-interval=-1 )')
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
