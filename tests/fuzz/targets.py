"""What is done with data from outside, in one function each: it returns, or raises what no user may ever see.

Hypothesis calls them with nearly valid data, atheris (``python -m tests.fuzz.with_atheris``) with bytes that it grows by
what they reach.
"""

import os
import shutil
import socket
import stat
import threading
from contextlib import contextmanager
from pathlib import Path

import msgspec

from rayxform.cache import released
from rayxform.core.assembling import cut_response
from rayxform.core.jsonpath import compile_path, encode_sorted, encode_value
from rayxform.errors import InvocationError, JobError, JobFileError, ModelError, ModelSourceError, RecordError, StorageError
from rayxform.model import InvocationContext, unpack_model
from rayxform.model.codecs import default_input_fn
from rayxform.model.server import ServerClient
from rayxform.pipeline.planning import make_recipe
from rayxform.spec import load_job, to_members
from rayxform.storage.listing import list_inputs

MAX_BYTES = 256 * 1024
MAX_MEMBERS = 40
CONTEXT = InvocationContext("object", 0, 1, 1, "application/json", "application/json", "")


def unpack(data: bytes, folder: Path) -> bool:
    """Unpack a model archive in a folder, and look for what must not be there; gives whether it was taken."""
    archive, models = folder / "model.tar.gz", folder / "models"
    (folder / "precious").write_text("untouched")
    archive.write_bytes(data)
    try:
        with released():
            unpacked = unpack_model(archive, models, max_bytes=MAX_BYTES, max_members=MAX_MEMBERS)
    except ModelSourceError:
        unpacked = None
    assert {path.name for path in folder.iterdir()} <= {"model.tar.gz", "precious", "models"}
    assert (folder / "precious").read_text() == "untouched"
    assert (folder / "precious").stat().st_nlink == 1
    if models.exists():
        names = {path.name for path in models.iterdir()}
        assert names == (set() if unpacked is None else {unpacked.name, f".{unpacked.name}.lock", f".{unpacked.name}.use"})
    if unpacked is not None:
        check_tree(unpacked)
        shutil.rmtree(models)
    return unpacked is not None


def check_tree(root: Path) -> None:
    """Files and folders that are the user's alone to write, links that stay inside, nothing else, and not too much."""
    n_bytes = 0
    for folder, _, names in os.walk(root):
        assert stat.S_ISDIR(os.lstat(folder).st_mode)
        for name in [*names, *(entry.name for entry in os.scandir(folder) if entry.is_symlink())]:
            path = os.path.join(folder, name)
            found = os.lstat(path)
            if stat.S_ISLNK(found.st_mode):
                assert os.path.realpath(path).startswith(f"{os.path.realpath(root)}{os.sep}") or os.path.samefile(path, root)
                continue
            assert stat.S_ISREG(found.st_mode)
            assert found.st_mode & 0o7022 == 0
            n_bytes += found.st_size / found.st_nlink
    assert n_bytes <= MAX_BYTES


def read_job(text: str) -> bool:
    """Read a job file, and plan with it as far as no storage is asked; gives whether it is a job."""
    try:
        job = load_job(text)
    except JobFileError as error:
        assert error.problems
        assert len(str(error)) < 200_000
        return False
    assert load_job(msgspec.json.encode(to_members(job)).decode()) == job
    try:
        make_recipe(job)
    except JobError:
        return False
    return True


def read_manifest(data: bytes, folder: Path) -> bool:
    """List the objects that a manifest names; gives whether there are any."""
    manifest = folder / "manifest"
    manifest.write_bytes(data)
    try:
        listing = list_inputs(str(manifest), str(folder / "output"), manifest=True)
    except (JobError, StorageError) as error:
        assert str(error)
        return False
    assert all(".." not in one.key.split("/") and not one.key.startswith("/") for one in listing.inputs)
    return True


def select(expression: str, value: bytes) -> bool:
    """Compile a filter and select with it; gives whether there was something to select."""
    try:
        path = compile_path(expression)
    except JobError as error:
        assert 0 <= error.column <= len(expression)
        return False
    try:
        raw = msgspec.json.decode(value, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    try:
        selected = encode_value(path.select(raw))
        encode_sorted(msgspec.Raw(selected))
    except RecordError as error:
        assert error.reason
        return False
    msgspec.json.decode(selected, type=msgspec.Raw)
    return True


def read_body(body: bytes, content_type: str) -> bool:
    """Decode a request's body as the default input_fn does; gives whether it can be."""
    text = content_type in ("application/json", "text/csv")
    try:
        default_input_fn(body.decode("utf-8", "replace") if text else body, content_type)
    except InvocationError as error:
        assert error.message
        return False
    return True


class RawServer:
    """A server that answers every request with the same bytes, whatever they are, and closes the connection."""

    def __init__(self) -> None:
        self.response = b""
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            with connection:
                try:
                    self._answer(connection)
                except OSError:
                    continue  # a client that had enough

    def _answer(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request or (request.startswith(b"POST") and not request.endswith(b"the body")):
            received = connection.recv(65536)
            if not received:
                return
            request += received
        connection.sendall(self.response)
        connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def raw_server():
    """A server and its client."""
    server = RawServer()
    client = ServerClient(server.url, timeout_s=5, chunked=False)
    try:
        yield server, client
    finally:
        client.close()
        server.close()


def ask(server: RawServer, client: ServerClient, response: bytes, n_records: int) -> bool:
    """Ask a server for everything that it is ever asked for; gives whether it answered the request."""
    server.response = response
    for question in (client.execution_parameters, lambda: client.wait_until_ready(0)):
        try:
            question()
        except ModelError as error:
            assert str(error)
    try:
        body = client.transform(b"the body", "application/json", "application/json", CONTEXT).body
        for accept in ("application/json", "application/jsonlines"):
            assert len(cut_response(body, n_records, accept, multi_record=True)) == n_records
    except ModelError as error:
        assert str(error)
        return False
    return True
