"""A model archive from anybody: it becomes files below its folder, or an error of ours."""

import gzip
import tarfile
import zlib

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.fuzz.examples import examples
from tests.fuzz.targets import unpack

LONG = "a" * 300
NAMES = [
    *[
        "a",
        "a/b",
        "a/b/c",
        "b",
        "B",
        "model.pt",
        "code/inference.py",
        "é",
        "e\u0301",
        "d/",
        "./a",
        "a//b",
        "a/./b",
        " ",
        "a\nb",
    ],
    *["..", "../precious", "a/../../precious", "/etc/passwd", "/tmp/outside", "", ".", "a/..", "..\\precious", "C:\\x", "~/x"],
    *[LONG, f"{LONG}/{LONG}", "a\x01", "\udcff", "precious", "../models", "a" * 5000],
]
KINDS = [bytes([kind]) for kind in b"0123456789\0xgLKSZDVNMX"]
SIZES = [0, 1, 511, 512, 513, 2**20, 2**33 - 1, 2**33, 2**63 - 1, 2**64, -1, -512, -(2**33)]
PAX = ["path", "linkpath", "size", "mtime", "uid", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.map"]
PAX += ["GNU.sparse.name", "GNU.sparse.realsize", "GNU.sparse.size", "GNU.sparse.numblocks", "hdrcharset", "comment", "é"]
names = st.sampled_from(NAMES) | st.text("ab./\\\0", max_size=8)
values = names | st.sampled_from([*map(str, SIZES), "1e3", "nan", "0,5,10,5", "1\n0\n5\n", "BINARY", "x" * 70_000])


@st.composite
def member(draw) -> bytes:
    """A member's header, with everything that a header can say, true or not, and contents."""
    info = tarfile.TarInfo(draw(names))
    info.type = draw(st.sampled_from([b"0"] * 8 + [b"5", b"2", b"1"] * 3 + KINDS))
    info.linkname = draw(names)
    info.mode = draw(st.sampled_from([0o644, 0o755, 0o7777, 0]))
    contents = draw(st.sampled_from([b"", b"x", b"model" * 200, b"\0" * 512, b"30 path=../precious\n"]))
    info.size = draw(st.just(len(contents)) | st.sampled_from(SIZES))
    info.pax_headers = draw(st.dictionaries(st.sampled_from(PAX), values, max_size=2))
    form = draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    try:
        header = info.tobuf(form, "utf-8", "surrogateescape")
    except (ValueError, UnicodeError, OverflowError):  # the writer's limits
        header = tarfile.TarInfo("a").tobuf(form)
    return damaged_header(draw, header) + contents + bytes(-len(contents) % draw(st.sampled_from([512, 512, 512, 1])))


def damaged_header(draw, header: bytes) -> bytes:
    """The header's last block with other bytes somewhere, and a checksum that fits again, or the header as it is."""
    if draw(st.integers(0, 3)):
        return header
    block, at = bytearray(header[-512:]), draw(st.integers(0, 511))
    noise = draw(
        st.binary(max_size=12) | st.sampled_from([b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-1\0", b"S", b"777777777777"])
    )
    block[at : at + len(noise)] = noise
    block = block[:512].ljust(512, b"\0")
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * 32)
    return header[:-512] + bytes(block)


@st.composite
def archives(draw) -> bytes:
    """Members one after another, mostly with an end mark, mostly in gzip, mostly whole."""
    data = b"".join(draw(st.lists(member(), max_size=6))) + draw(
        st.sampled_from([bytes(1024)] * 4 + [b"", bytes(512), b"x" * 512])
    )
    form = draw(st.sampled_from(["plain", "gzip", "gzip", "gzip", "two members", "deflate"]))
    if form == "gzip":
        data = gzip.compress(data, 1)
    elif form == "two members":
        data = gzip.compress(data[:700], 1) + gzip.compress(data[700:], 1)
    elif form == "deflate":
        data = b"\x1f\x8b\x08" + zlib.compress(data)
    cut = draw(st.sampled_from(["no"] * 5 + ["cut", "flip", "more"]))
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    if cut == "cut":
        return data[:at]
    if cut == "flip" and data:
        return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
    return data + draw(st.binary(max_size=20)) if cut == "more" else data


@pytest.fixture(scope="module")
def around(tmp_path_factory):
    """The folder that archives are unpacked below."""
    return tmp_path_factory.mktemp("around")


taken = []


@given(archives())
@examples(150)
def test_an_archive_is_unpacked_below_its_folder_or_refused(around, data):
    taken.append(unpack(data, around))
    event(f"taken: {taken[-1]}")


def test_archives_of_both_kinds_were_seen():
    assert {True, False} == set(taken)
