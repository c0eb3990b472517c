"""moto's S3 server as a process of its own, behind a proxy that counts requests, and breaks or delays some."""

import contextlib
import http.client
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class S3Proxy(ThreadingHTTPServer):
    """Passes requests on to the server.

    Attributes:
        seen: method and path of each request.
        most_at_once: the highest number of requests under way.
        fault: asked about each request; a number of seconds delays it, a status answers in the server's place, "truncate"
            breaks the answer off in the middle, "drop" closes the connection, "lose" does so when the server has done what was
            asked; a pair of a status and one of S3's codes answers with an error as S3 does; None lets it pass.
        around: asked about each request; the lock that it gives is held while the server does what was asked.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server_port_behind = port
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.lock = threading.Lock()
        self.now = 0
        self.reset()

    def reset(
        self,
        fault: Callable[[str, str], Any] = lambda method, path: None,
        around: Callable[[str, str], Any] = lambda method, path: None,
    ) -> None:
        """Count anew, with another fault."""
        self.around = around
        self.seen: list[tuple[str, str]] = []
        self.most_at_once = 0
        self.fault = fault

    def count(self, pattern: str) -> int:
        """How many requests there were whose method and path match."""
        return sum(bool(re.search(pattern, f"{method} {path}")) for method, path in self.seen)

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator["S3Proxy"]:
        """Server and proxy, ready for requests."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert server.poll() is None, "moto's server ended"
                    time.sleep(0.05)
            with cls(port) as proxy:
                threading.Thread(target=proxy.serve_forever, daemon=True).start()
                yield proxy
                proxy.shutdown()
        finally:
            server.terminate()
            server.wait()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3Proxy

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def handle_any(self) -> None:
        body = self._body()
        with self.server.lock:
            self.server.seen.append((self.command, self.path))
            self.server.now += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.now)
        try:
            self._answer(body, self.server.fault(self.command, self.path))
        finally:
            with self.server.lock:
                self.server.now -= 1

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, body: bytes, fault: Any) -> None:
        if fault == "drop":
            self.close_connection = True
            return
        if isinstance(fault, float):
            time.sleep(fault)
        if isinstance(fault, int | tuple):
            status, code = fault if isinstance(fault, tuple) else (fault, None)
            text = f"<Error><Code>{code}</Code><Message>{code}, says the proxy</Message></Error>" if code else ""
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode() if self.command != "HEAD" else b"")
            return
        with self.server.around(self.command, self.path) or contextlib.nullcontext():
            answer, data = self._pass_on(body)
        if fault == "lose":
            self.close_connection = True
            return
        self._send(answer, data, truncated=fault == "truncate")

    def _pass_on(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        behind = http.client.HTTPConnection("127.0.0.1", self.server.server_port_behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("transfer-encoding", "expect")}
        headers["Content-Length"] = str(len(body))
        behind.request(self.command, self.path, body, headers)
        answer = behind.getresponse()
        data = answer.read()
        behind.close()
        return answer, data

    def _send(self, answer: http.client.HTTPResponse, data: bytes, *, truncated: bool) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if truncated else data)
        self.close_connection = self.close_connection or truncated

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


class Bucket:
    """A bucket of a test's own, seen with stock boto3."""

    def __init__(self, proxy: S3Proxy) -> None:
        import boto3

        self.proxy = proxy
        self.name = f"test-{uuid.uuid4().hex[:12]}"
        self.client: Any = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{proxy.server_port_behind}")
        self.client.create_bucket(Bucket=self.name)
        self.url = f"s3://{self.name}"
        proxy.reset()

    def put(self, key: str, data: bytes) -> str:
        """Write an object; gives its URL."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)
        return f"{self.url}/{key}"

    def get(self, key: str) -> bytes:
        """An object's bytes."""
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of all objects."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def uploads(self) -> list[str]:
        """The keys of uploads that were begun and neither completed nor aborted."""
        return [one["Key"] for one in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())]
