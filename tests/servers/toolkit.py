"""The code that a SageMaker framework container runs (PyPI's sagemaker-inference), behind a plain HTTP server.

In a container the same handler service sits behind AWS's Java server. Usage: ``python toolkit.py MODEL_DIR PORT``.
"""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from sagemaker_inference.default_handler_service import DefaultHandlerService

MODEL_DIR, PORT = sys.argv[1:]


class Context:
    """What AWS's server hands to a handler service with each request."""

    def __init__(self, headers=()):
        self.system_properties = {"model_dir": MODEL_DIR}
        self.request_processor = [self]
        self.headers = dict(headers)
        self.status, self.content_type = 200, "text/plain"

    def get_request_properties(self):
        return self.headers

    def set_response_content_type(self, index, value):
        self.content_type = value

    def set_response_status(self, code, phrase):
        self.status = code


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404, b"", "text/plain")

    def do_POST(self):
        context = Context(self.headers.items())
        body = self.rfile.read(int(self.headers["Content-Length"]))
        (result,) = SERVICE.handle([{"body": body}], context)
        self.answer(context.status, result.encode() if isinstance(result, str) else result, context.content_type)

    def answer(self, status, body, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


sys.path.insert(0, str(Path(MODEL_DIR) / "code"))
SERVICE = DefaultHandlerService()
SERVICE.initialize(Context())
HTTPServer(("127.0.0.1", int(PORT)), Handler).serve_forever()
