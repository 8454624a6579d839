"""Tells Docker whether the server in this container is ready: exit status 0 or 1. The image has no curl."""

import os
import sys
from http.client import HTTPConnection, HTTPException

# Not urllib: Docker may hand the container a proxy's address, which urllib would ask for this.
connection = HTTPConnection("127.0.0.1", int(os.environ["KEYWARP_PORT"]), timeout=4)
try:
    connection.request("GET", "/readyz")
    response = connection.getresponse()
    said = response.read(500).decode(errors="replace")
except (OSError, HTTPException) as error:
    sys.exit(f"no answer: {error!r}")
if response.status != 200:
    sys.exit(f"{response.status}: {said}")
