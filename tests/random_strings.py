"""Byte strings for fuzzing: random ones, and valid objects of every format that were damaged in every way we could think of."""

import gzip
import random
import struct
from collections.abc import Iterator

import google_crc32c

from rayxform.core.examples import write_example
from rayxform.core.framing import recordio_frame, tfrecord_frame

MAGIC = b"\x0a\x23\xd7\xce"
LENGTHS = [0, 1, 15, 2**16, 2**29 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
TOKENS = [
    b"\n",
    b"\r\n",
    b'"',
    b'""',
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b'{"id":1}',
    b"1e5",
    b"null",
    b"\\u00e9",
    b"\xff",
    b"\xef\xbb\xbf",
]
TOKENS += [MAGIC, bytes(4), bytes(8), b"\x1f\x8b\x08", struct.pack("<I", 1 << 29 | 4), b"SageMakerOutput", b"a" * 30]


def tfrecord_header(length: int) -> bytes:
    """The beginning of a frame that says how long its content is, with the CRC by which that is true."""
    packed = struct.pack("<Q", length)
    crc = google_crc32c.value(packed)
    return packed + struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


HEADERS = [tfrecord_header(length) for length in LENGTHS]
HEADERS += [MAGIC + struct.pack("<I", length & 0xFFFFFFFF) for length in LENGTHS]


def valid_objects(rng: random.Random) -> list[bytes]:
    """Small objects of every format."""
    rows = [b'{"id":%d,"x":"%s","y":[1.0,{"z":%d}]}' % (n, b"v" * rng.randrange(9), n) for n in range(6)]
    csv = [b'%d,"a ""%d"", b",,%d.0' % (n, n, n) for n in range(6)]
    examples = [write_example({"id": [n], "image": [rng.randbytes(n)], "score": [n / 3]}) for n in range(4)]
    contents = [rng.randbytes(rng.randrange(30)) for _ in range(4)] + [
        b"abcd" + MAGIC * 3 + b"e",
        tfrecord_frame(b"inner") * 2,
        b"",
    ]
    objects = [b"\n".join(rows), b"\r\n".join(rows) + b"\r\n", b"\n\n".join(rows), b"[" + b",".join(rows) + b"]"]
    objects += [b"\n".join(csv), b"\r\n".join(csv), rows[0], csv[0], b"", b"\n", b'"a string"', b"17"]
    for frame in (tfrecord_frame, recordio_frame):
        objects += [b"".join(map(frame, group)) for group in (contents, examples, rows, [b""], [frame(b"x") * 3])]
    # Deeper than Python's stack.
    objects += [b"[" * 3000, b'{"id":' * 3000 + b"1" + b"}" * 3000, b'{"id":1,"x":' + b"[" * 3000 + b"]" * 3000 + b"}\n17"]
    return objects


def random_strings(count: int, seed: int) -> Iterator[bytes]:
    """So many strings, the same for the same seed: none empty, some valid, most short."""
    rng = random.Random(seed)
    objects = valid_objects(rng)
    short = [one for one in objects if len(one) < 1000]
    damages = [_random, _tokens, _unchanged, _cut, _flip, _insert, _lie, _join]
    for number in range(count):
        # The three deep ones take as long as a hundred others.
        text = rng.choice(objects if number % 100 == 0 else short)
        yield rng.choice(damages)(rng, text, rng.choice(short))


def compressed(rng: random.Random, text: bytes) -> bytes:
    """The string in gzip, in one member or two, mostly whole."""
    at = rng.randrange(len(text) + 1)
    whole = gzip.compress(text[:at], 1) + (gzip.compress(text[at:], 1) if rng.random() < 0.5 else b"")
    return whole if rng.random() < 0.6 else rng.choice([_cut, _flip, _insert, _join])(rng, whole, text)


def _random(rng: random.Random, text: bytes, other: bytes) -> bytes:
    return rng.randbytes(rng.randrange(80))


def _tokens(rng: random.Random, text: bytes, other: bytes) -> bytes:
    return b"".join(rng.choices(TOKENS, k=rng.randrange(12)))


def _unchanged(rng: random.Random, text: bytes, other: bytes) -> bytes:
    return text


def _cut(rng: random.Random, text: bytes, other: bytes) -> bytes:
    return text[: rng.randrange(len(text) + 1)]


def _flip(rng: random.Random, text: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(text) + 1)
    return text[:at] + bytes([text[at] ^ 1 << rng.randrange(8)]) + text[at + 1 :] if at < len(text) else text


def _insert(rng: random.Random, text: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.randbytes(rng.randrange(1, 20)) + text[at + rng.randrange(3) :]


def _lie(rng: random.Random, text: bytes, other: bytes) -> bytes:
    at = rng.choice([0, rng.randrange(len(text) + 1)])
    return text[:at] + rng.choice(HEADERS) + text[at:]


def _join(rng: random.Random, text: bytes, other: bytes) -> bytes:
    return text[: rng.randrange(len(text) + 1)] + other[rng.randrange(len(other) + 1) :]
