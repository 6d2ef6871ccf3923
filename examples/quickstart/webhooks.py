"""Receives alerts by webhook and checks who sent them: nothing but Python's own library."""

import base64
import hashlib
import hmac
import json
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

ADDRESS = ("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 8090)
SECRET = Path(sys.argv[1])
TOLERANCE_SECONDS = 300
seen: set[str] = set()


def is_genuine(headers: dict[str, str], body: bytes) -> bool:
    """Signed with our key, and not an old one sent again (Standard Webhooks)."""
    key = base64.b64decode(SECRET.read_text().strip().removeprefix("whsec_"))
    said = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()
    signatures = [each.removeprefix("v1,") for each in headers["webhook-signature"].split()]
    is_fresh = abs(time.time() - int(headers["webhook-timestamp"])) < TOLERANCE_SECONDS
    return is_fresh and any(hmac.compare_digest(each, wanted) for each in signatures)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if not is_genuine(dict(self.headers), body):
            self.send_error(401)
            return
        # Answer first what is quick: whoever waits too long is asked again.
        self.send_response(204)
        self.end_headers()
        event = json.loads(body)
        if event["id"] not in seen:  # delivered twice, taken once
            seen.add(event["id"])
            alert = event["data"]
            print(f"{event['type']}: {alert['model_name']}: {alert['summary']}", flush=True)


if not SECRET.exists():
    SECRET.parent.mkdir(parents=True, exist_ok=True)
    SECRET.write_text("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    SECRET.chmod(0o600)
with HTTPServer(ADDRESS, Receiver) as server:
    print(f"waiting for alerts on http://{ADDRESS[0]}:{ADDRESS[1]}/", flush=True)
    server.serve_forever()
