"""Answers; the second node stays broken once it has been started again."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LIVES = Path("/data/lives")
lives = int(LIVES.read_text()) + 1 if LIVES.exists() else 1
LIVES.write_text(str(lives))
broken = lives > 1 and os.environ["ENVCTL_NODE"] == "web-1"


class Web(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"queue": {"depth": 3}, "lives": lives}).encode()
        self.send_response(500 if broken and self.path == "/work" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("", 8080), Web).serve_forever()
