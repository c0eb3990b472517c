"""A model server that does what a script says, and counts what it saw.

Usage: ``python scripted.py PORT`` (or PORT in the environment). The script is JSON in the variable SCRIPT:

- ``ready_after``: pings that are answered 503 first; ``parameters``: what /execution-parameters answers (absent: 404).
- ``answer``: "echo" (default), "lengths" (one {"length": n} a line) or "env" (environment variables as JSON, by name prefix).
- ``fail``: a list of faults, used up one a request: a status, "drop", "hang", "drip", "drip headers" or "exit".
- ``fail_if``: {text: fault} for requests that hold the text; ``delay_s``: how long each request takes;
  ``until_in_flight``: nobody is answered before so many requests are under way, or 30 s are over.

``GET /seen`` tells the counts.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCRIPT = json.loads(os.environ.get("SCRIPT", "{}"))
LOCK = threading.Lock()
SEEN = {
    "pings": 0,
    "parameters": 0,
    "requests": 0,
    "in_flight": 0,
    "most_in_flight": 0,
    "connections": 0,
    "chunked": 0,
    "headers": {},
}
FAULTS = list(SCRIPT.get("fail", []))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.is_counted = False

    def log_message(self, *arguments):
        pass

    def answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path.endswith("/ping"):
            SEEN["pings"] += 1
            self.answer(503 if SEEN["pings"] <= SCRIPT.get("ready_after", 0) else 200, b"")
        elif self.path.endswith("/execution-parameters") and "parameters" in SCRIPT:
            SEEN["parameters"] += 1
            said = SCRIPT["parameters"]
            self.answer(
                said if isinstance(said, int) else 200, said.encode() if isinstance(said, str) else json.dumps(said).encode()
            )
        elif self.path.endswith("/seen"):
            self.answer(200, json.dumps(SEEN).encode())
        else:
            self.answer(404, b"no such thing")

    def do_POST(self):
        body = self.body()
        with LOCK:
            SEEN["requests"] += 1
            SEEN["in_flight"] += 1
            SEEN["most_in_flight"] = max(SEEN["most_in_flight"], SEEN["in_flight"])
            SEEN["connections"] += not self.is_counted
            SEEN["headers"] = dict(self.headers)
            self.is_counted = True
            of_body = [fault for text, fault in SCRIPT.get("fail_if", {}).items() if text.encode() in body]
            fault = of_body[0] if of_body else FAULTS.pop(0) if FAULTS else None
        try:
            time.sleep(SCRIPT.get("delay_s", 0))
            give_up_at = time.monotonic() + 30
            while SEEN["most_in_flight"] < SCRIPT.get("until_in_flight", 0) and time.monotonic() < give_up_at:
                time.sleep(0.01)
            self.fail(fault) if fault else self.succeed(body)
        finally:
            with LOCK:
                SEEN["in_flight"] -= 1

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        SEEN["chunked"] += 1
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def succeed(self, body):
        how = SCRIPT.get("answer", "echo")
        if how == "lengths":
            body = "\n".join(json.dumps({"length": len(line)}) for line in body.split(b"\n")).encode()
        elif how == "env":
            body = json.dumps({name: os.environ.get(name) for name in SCRIPT["names"]}).encode()
        self.answer(200, body, SCRIPT.get("type", self.headers.get("Accept") or "text/plain"))

    def fail(self, fault):
        if isinstance(fault, int):
            self.answer(fault, (SCRIPT.get("message", "no, thanks") * SCRIPT.get("message_times", 1)).encode(), "text/plain")
        elif fault == "drop":
            self.close_connection = True
        elif fault == "hang":
            time.sleep(3600)
        elif fault == "exit":
            print("out of memory, says the server", flush=True)
            os._exit(3)
        else:
            if fault == "drip":
                self.send_response(200)
                self.send_header("Content-Length", "3600")
                self.end_headers()
            else:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            while True:
                self.wfile.write(b"H")
                self.wfile.flush()
                time.sleep(0.2)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass  # a client that gave up


if __name__ == "__main__":
    print("starting", flush=True)
    if "exit_at_start" in SCRIPT:
        print("no weights here", file=sys.stderr)
        sys.exit(SCRIPT["exit_at_start"])
    Server(("127.0.0.1", int(sys.argv[1] if len(sys.argv) > 1 else os.environ["PORT"])), Handler).serve_forever()
