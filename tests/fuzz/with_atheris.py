"""The same targets under atheris, which grows bytes by what they reach in the code: ``python -m tests.fuzz.with_atheris``.

Usage: ``python -m tests.fuzz.with_atheris TARGET [libFuzzer options]``, such as ``archives -max_total_time=60``. TARGET is
one of archives, jobs, manifests, filters, bodies and servers. It needs ``pip install atheris`` and is no part of the tests.
"""

import gzip
import itertools
import json
import sys
import tarfile
import tempfile
from pathlib import Path

import atheris
import yaml

with atheris.instrument_imports(include=["rayxform", "yaml", "jsonpath_ng", "tarfile", "aiohttp"]):
    from tests.fuzz import targets

from tests.fuzz import test_archives, test_inputs, test_jobs, test_servers


def archives(data: bytes) -> None:
    targets.unpack(data, FOLDER / "around")
    targets.unpack(gzip.compress(data + bytes(1024), 1), FOLDER / "around")


def jobs(data: bytes) -> None:
    targets.read_job(data.decode("utf-8", "replace"))


def manifests(data: bytes) -> None:
    targets.read_manifest(data, FOLDER)


def filters(data: bytes) -> None:
    expression, _, value = data.partition(b"\n")
    targets.select("$" + expression.decode("utf-8", "replace"), value or b'{"a":[1,{"b":2}],"b":{"a":null}}')


def bodies(data: bytes) -> None:
    kinds = ["application/x-npy", "application/json", "text/csv", "application/jsonlines", "application/x-tfexample"]
    targets.read_body(data[1:], kinds[data[0] % len(kinds)] if data else kinds[0])


def servers(data: bytes) -> None:
    targets.ask(*PAIR, data, 2)


def tar_of(kind: bytes, target: str) -> bytes:
    """An archive of a file and of something that names it."""
    members = [tarfile.TarInfo("a/b"), tarfile.TarInfo("a/c")]
    members[1].type, members[1].linkname = kind, target
    return b"".join(member.tobuf(form) for form in range(3) for member in members)


def begin_with() -> dict[str, list[bytes]]:
    """Valid data for each target; for filters also the steps that there are."""
    answers = [
        b"\r\n".join([b"HTTP/1.1 200 OK", *headers]) for headers in itertools.product(test_servers.HEADERS, [b"", b"[1,2]"])
    ]
    return {
        "archives": [tar_of(kind, "b") for kind in test_archives.KINDS],
        "jobs": [json.dumps(test_jobs.VALID).encode(), yaml.safe_dump(test_jobs.VALID).encode()]
        + [piece.encode("utf-8", "replace") for piece in test_jobs.YAML],
        "manifests": [b'[{"prefix": "memory://x/"}, "a", "b"]', b"[]"],
        "filters": [step.encode("utf-8", "replace") for step in test_inputs.STEPS],
        "bodies": [bytes([kind]) + body for kind in range(5) for body in test_inputs.BODIES],
        "servers": answers + [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body for body in test_servers.CHUNKED],
    }


TARGETS = {one.__name__: one for one in (archives, jobs, manifests, filters, bodies, servers)}

if __name__ == "__main__":
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, targets.raw_server() as PAIR:
        FOLDER = Path(folder)
        for place in ("around", "seeds"):
            (FOLDER / place).mkdir()
        for number, seed in enumerate(begin_with()[name]):
            (FOLDER / "seeds" / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], str(FOLDER / "seeds"), *options], TARGETS[name])
        atheris.Fuzz()
