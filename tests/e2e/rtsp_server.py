# mypy: ignore-errors
"""Serve a clip over RTSP as a camera does, with GStreamer. Debian's Python runs this, because it has the bindings.

    python3 rtsp_server.py CLIP PORT [USER PASSWORD | --tls CERTIFICATE KEY]

It prints its port as soon as it listens; port 0 stands for any free one. With a user and password it asks for them
by Digest authentication, and prints a line for each connection. With a certificate it serves RTSPS.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

clip, port, *login = sys.argv[1:]
Gst.init(None)
server = GstRtspServer.RTSPServer(service=port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f'( filesrc location="{clip}" ! qtdemux ! h264parse ! rtph264pay name=pay0 config-interval=-1 )')
if login and login[0] == "--tls":
    auth = GstRtspServer.RTSPAuth()
    auth.set_tls_certificate(Gio.TlsCertificate.new_from_files(*login[1:]))
    anyone = GstRtspServer.RTSPToken()
    anyone.set_string("media.factory.role", "anyone")
    auth.set_default_token(anyone)
    server.set_auth(auth)
    factory.add_role_from_structure(
        Gst.Structure.new_from_string("anyone, media.factory.access=true, media.factory.construct=true")
    )
elif login:
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    permissions = GstRtspServer.RTSPToken()
    permissions.set_string("media.factory.role", "viewer")
    auth.add_digest(login[0], login[1], permissions)
    server.set_auth(auth)
    factory.add_role_from_structure(
        Gst.Structure.new_from_string("viewer, media.factory.access=true, media.factory.construct=true")
    )
    server.connect("client-connected", lambda *_: print("connected", flush=True))
server.get_mount_points().add_factory("/camera", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
