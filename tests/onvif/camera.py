"""A stand-in for a camera: a process that answers ONVIF's probes and calls as cameras do, or as they shouldn't.

It checks the digests of WS-Security's tokens, or of HTTP, with code of its own. It prints its ports: UDP, HTTP.
"""

import argparse
import base64
import hashlib
import re
import socket
import struct
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.etree import ElementTree

GROUP = "239.255.255.250"
USER, PASSWORD = "admin", "pass<word>1"
DEVICE, MEDIA, MEDIA2 = (f"http://www.onvif.org/{part}/wsdl" for part in ("ver10/device", "ver10/media", "ver20/media"))
SCHEMA = "http://www.onvif.org/ver10/schema"
SKEW = 60.0  # seconds that a token may be from the camera's clock
DOCTYPE = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><a>&c;</a>'


def envelope(body: str, header: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope"'
        f' xmlns:tt="{SCHEMA}" xmlns:ter="http://www.onvif.org/ver10/error"><e:Header>{header}</e:Header>'
        f"<e:Body>{body}</e:Body></e:Envelope>"
    ).encode()


def fault(subcode: str, reason: str) -> bytes:
    return envelope(
        f"<e:Fault><e:Code><e:Value>e:Sender</e:Value><e:Subcode><e:Value>ter:{subcode}</e:Value></e:Subcode></e:Code>"
        f'<e:Reason><e:Text xml:lang="en">{reason}</e:Text></e:Reason></e:Fault>'
    )


class Camera:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.nonces: set[str] = set()
        self.port = 0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.options.ahead)

    def matches(self, related: str) -> bytes:
        """Answer a probe."""
        scopes = " ".join(
            f"onvif://www.onvif.org/{scope}"
            for scope in ("type/video_encoder", "name/Front%20door", "hardware/DS-2CD2143", "location/Yard%1B%5B31m")
        )
        address = self.options.xaddrs or f"http://127.0.0.1:{self.port}/onvif/device_service"
        return envelope(
            '<d:ProbeMatches xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery"><d:ProbeMatch>'
            '<a:EndpointReference xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing">'
            "<a:Address>urn:uuid:5f5a69c2-e0ae-504f-829b-00000000000a</a:Address></a:EndpointReference>"
            f"<d:Scopes>{scopes}</d:Scopes><d:XAddrs>http://[fe80::1]/onvif/device_service {address}</d:XAddrs>"
            "</d:ProbeMatch></d:ProbeMatches>",
            '<a:RelatesTo xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing">' + related + "</a:RelatesTo>",
        )

    def answer_probes(self, receiver: socket.socket) -> None:
        while True:
            datagram, sender = receiver.recvfrom(65_535)
            name = ElementTree.fromstring(datagram).findtext(".//{*}MessageID") or ""
            if self.options.answer == "silent":
                continue
            if self.options.answer == "garbage":
                for junk in (b"\xff" * 60_000, b"", DOCTYPE.encode(), self.matches("urn:uuid:other"), b"<a/>"):
                    receiver.sendto(junk, sender)
            receiver.sendto(self.matches(name), sender)

    def may(self, security: ElementTree.Element | None) -> bool:
        """Check the token as the profile of UsernameTokens says."""
        if security is None:
            return False
        created, nonce = security.findtext(".//{*}Created") or "", security.findtext(".//{*}Nonce") or ""
        made = datetime.strptime(created, "%Y-%m-%dT%H:%M:%S%z")
        if nonce in self.nonces or abs((made - self.now()).total_seconds()) > SKEW:
            return False
        self.nonces.add(nonce)
        digest = hashlib.sha1(base64.b64decode(nonce) + created.encode() + PASSWORD.encode(), usedforsecurity=False)
        expected = (USER, base64.b64encode(digest.digest()).decode())
        return (security.findtext(".//{*}Username"), security.findtext(".//{*}Password")) == expected

    def call(self, body: bytes, authorized: bool) -> tuple[int, bytes]:
        message = ElementTree.fromstring(body)
        request = message.findall("{*}Body/*")[0]
        namespace, name = re.fullmatch(r"{(.*)}(.*)", request.tag).groups()  # type: ignore[union-attr]
        base = f"http://{self.options.inside or f'127.0.0.1:{self.port}'}"
        if name != "GetSystemDateAndTime" and not authorized and not self.may(message.find("{*}Header/{*}Security")):
            print("refused", flush=True)
            return 400, fault("NotAuthorized", "Sender not authorized")
        now = self.now()
        if (namespace, name) == (DEVICE, "GetSystemDateAndTime"):
            text = (
                "<p:SystemDateAndTime><tt:DateTimeType>NTP</tt:DateTimeType><tt:UTCDateTime>"
                f"<tt:Time><tt:Hour>{now.hour}</tt:Hour><tt:Minute>{now.minute}</tt:Minute>"
                f"<tt:Second>{now.second}</tt:Second></tt:Time><tt:Date><tt:Year>{now.year}</tt:Year>"
                f"<tt:Month>{now.month}</tt:Month><tt:Day>{now.day}</tt:Day></tt:Date></tt:UTCDateTime>"
                "</p:SystemDateAndTime>"
            )
        elif (namespace, name) == (DEVICE, "GetDeviceInformation"):
            text = (
                "<p:Manufacturer>HIKVISION</p:Manufacturer><p:Model>DS-2CD2143</p:Model>"
                "<p:FirmwareVersion>V5.5.82</p:FirmwareVersion>"
            )
        elif (namespace, name) == (DEVICE, "GetServices") and not self.options.old:
            kinds = [DEVICE, MEDIA, *([MEDIA2] if self.options.media2 else [])]
            text = "".join(
                f"<p:Service><p:Namespace>{kind}</p:Namespace><p:XAddr>{base}/onvif/{index}</p:XAddr></p:Service>"
                for index, kind in enumerate(kinds)
            )
        elif (namespace, name) == (DEVICE, "GetCapabilities"):
            text = f"<p:Capabilities><tt:Media><tt:XAddr>{base}/onvif/1</tt:XAddr></tt:Media></p:Capabilities>"
        elif name == "GetProfiles" and namespace in (MEDIA, MEDIA2):
            text = "".join(self.profile(namespace, *one) for one in (("main", 1920, 25), ("sub", 640, 8)))
        elif name == "GetStreamUri" and namespace in (MEDIA, MEDIA2):
            token = request.findtext("{*}ProfileToken")
            host = self.options.inside or "127.0.0.1"
            url = f"rtsp://{host}:554/Streaming/{token}?password=pass&lt;word&gt;1"
            text = (
                f"<p:Uri>{url}</p:Uri>" if namespace == MEDIA2 else f"<p:MediaUri><tt:Uri>{url}</tt:Uri></p:MediaUri>"
            )
        else:
            return 400, fault("ActionNotSupported", "Optional Action Not Implemented")
        return 200, envelope(f'<p:{name}Response xmlns:p="{namespace}">{text}</p:{name}Response>')

    def profile(self, namespace: str, token: str, width: int, fps: int) -> str:
        encoder = (
            f"<tt:Encoding>{'H265' if namespace == MEDIA2 else 'H264'}</tt:Encoding>"
            f"<tt:Resolution><tt:Width>{width}</tt:Width><tt:Height>{width * 9 // 16}</tt:Height></tt:Resolution>"
            f"<tt:RateControl><tt:FrameRateLimit>{fps}</tt:FrameRateLimit></tt:RateControl>"
        )
        if namespace == MEDIA2:
            inner = f"<p:Configurations><p:VideoEncoder>{encoder}</p:VideoEncoder></p:Configurations>"
            return f'<p:Profiles token="{token}"><p:Name>{token}stream</p:Name>{inner}</p:Profiles>'
        inner = f"<tt:VideoEncoderConfiguration>{encoder}</tt:VideoEncoderConfiguration>"
        return f'<p:Profiles token="{token}"><tt:Name>{token}stream</tt:Name>{inner}</p:Profiles>'


def handler_of(camera: Camera) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kind = camera.options.answer
            if kind == "silent":
                time.sleep(600)
            elif kind == "drip":
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(b" ")
                    time.sleep(0.05)
            elif kind == "huge":
                self.respond(200, b"<a>" + b"b" * 2**22)
            elif kind == "garbage":
                self.respond(200, b"<html><body>It works!<br></body></html>")
            elif kind == "entities":
                self.respond(200, DOCTYPE.encode())
            elif kind == "elsewhere":
                self.respond(302, b"", location="http://127.0.0.1:1/")
            else:
                self.call(body)

        def call(self, body: bytes) -> None:
            authorized = False
            if camera.options.http_digest and b"GetSystemDateAndTime" not in body:
                authorized = self.has_digest()
                if not authorized:
                    print("refused", flush=True)
                    self.respond(401, b"", www_authenticate='Digest realm="camera", nonce="n0nce", qop="auth"')
                    return
            self.respond(*camera.call(body, authorized))

        def has_digest(self) -> bool:
            sent = dict(re.findall(r'(\w+)="?([^",]*)"?', self.headers.get("authorization", "")))
            if not sent:
                return False

            def md5(*parts: str) -> str:
                return hashlib.md5(":".join(parts).encode(), usedforsecurity=False).hexdigest()

            ours = md5(USER, "camera", PASSWORD), md5("POST", self.path)
            expected = md5(ours[0], "n0nce", sent["nc"], sent["cnonce"], "auth", ours[1])
            return (sent["username"], sent["response"]) == (USER, expected)

        def respond(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--udp", type=int, default=0)
    parser.add_argument("--answer", default="well")
    parser.add_argument("--media2", action="store_true")
    parser.add_argument("--old", action="store_true")
    parser.add_argument("--http-digest", action="store_true")
    parser.add_argument("--ahead", type=float, default=0.0)
    parser.add_argument("--xaddrs", default="")
    parser.add_argument("--inside", default="")
    camera = Camera(parser.parse_args())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        receiver.bind(("" if camera.options.udp else "127.0.0.1", camera.options.udp))
        loopback = struct.pack("4s4si", socket.inet_aton(GROUP), b"", socket.if_nametoindex("lo"))
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, loopback)
        server = ThreadingHTTPServer(("", 0), handler_of(camera))
        server.daemon_threads = True
        camera.port = server.server_port
        print(receiver.getsockname()[1], camera.port, flush=True)
        threading.Thread(target=camera.answer_probes, args=(receiver,), daemon=True).start()
        server.serve_forever()


if __name__ == "__main__":
    main()
