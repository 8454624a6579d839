import subprocess
import sys

SCRIPT = """
import logging
from keywarp.server.telemetry.logs import log_to_stderr

log_to_stderr("INFO")
logging.getLogger("httpx").info("HTTP Request: POST %s", "https://user:SECRET@alarm.example/hook?token=SECRET")
try:
    raise OSError("can't open 'rtsp://user:SECRET@camera/1'")
except OSError:
    logging.exception("stream %s failed", "gate")
"""


def test_log_lines_and_tracebacks_of_any_package_have_no_secrets_of_addresses() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, encoding="utf-8", check=True)
    assert "INFO httpx: HTTP Request: POST https://alarm.example/hook\n" in done.stderr
    assert "OSError: can't open 'rtsp://camera/1'" in done.stderr
    assert "SECRET" not in done.stderr
