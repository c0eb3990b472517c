"""The same targets under atheris, which grows bytes by what they reach in the code: ``python -m tests.fuzz.with_atheris``.

Usage: ``python -m tests.fuzz.with_atheris TARGET [libFuzzer options]``, such as ``archives -max_total_time=60``. TARGET is
one of archives, jobs, manifests, filters, bodies and servers. It needs ``pip install atheris`` and is no part of the tests.
"""

import gzip
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rayxform", "yaml", "jsonpath_ng", "tarfile", "aiohttp"]):
    from tests.fuzz import targets


def archives(data: bytes) -> None:
    targets.unpack(data, FOLDER)
    targets.unpack(gzip.compress(data + bytes(1024), 1), FOLDER)


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


TARGETS = {one.__name__: one for one in (archives, jobs, manifests, filters, bodies, servers)}

if __name__ == "__main__":
    name, *options = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, targets.raw_server() as PAIR:
        FOLDER = Path(folder)
        atheris.Setup([sys.argv[0], *options], TARGETS[name])
        atheris.Fuzz()
