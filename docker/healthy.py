"""Tell Docker by the exit status whether the server in this container is ready. The image has no curl."""

import os
import sys
from http.client import HTTPConnection, HTTPException

# http.client instead of urllib, which would use a proxy if Docker passes the container the address of one.
connection = HTTPConnection("127.0.0.1", int(os.environ["KEYWARP_PORT"]), timeout=4)
try:
    connection.request("GET", "/readyz")
    response = connection.getresponse()
    body = response.read(500).decode(errors="replace")
except (OSError, HTTPException) as error:
    sys.exit(f"no response: {error!r}")
if response.status != 200:
    sys.exit(f"{response.status}: {body}")
