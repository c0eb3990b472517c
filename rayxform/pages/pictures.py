"""Images in users' data: found by what they begin with, verified, and shown as ``data:`` URLs or not at all."""

from __future__ import annotations

import io
import warnings
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, UnidentifiedImageError

MAX_BYTES = 256 * 1024
"""The most bytes of an image that is shown."""
MAX_PIXELS = 16_000_000
"""The most pixels: some bytes may say that they are a square kilometre."""
MOST_TOGETHER = 3 * 1024 * 1024
"""The most bytes of all images of a section, as they stand in the page."""
MAX_DEPTH = 8
"""How deep images are looked for in a JSON value."""

_MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"RIFF": "WEBP"}
"""RFC 2083 §3.1, JFIF, GIF89a §17, and Google's "WebP Container Specification"."""
_BASE64_MAGIC = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
"""What those are in base64."""


@dataclass(frozen=True)
class Picture:
    """An image, or why it is not shown.

    Attributes:
        name: where it was found; "" for a record that is one.
        data_url: its bytes as a ``data:`` URL; "" if it is not shown.
        caption: its format and size, or why it is not shown.
        width: in pixels; 0 if it is not shown.
        height: in pixels; 0 if it is not shown.
    """

    name: str
    data_url: str
    caption: str
    width: int = 0
    height: int = 0


class Budget:
    """How much of a section's images is shown, so that a page that is fetched every two seconds stays small."""

    def __init__(self) -> None:
        self._left = MOST_TOGETHER

    def take(self, pictures: Sequence[Picture]) -> tuple[Picture, ...]:
        """The images as they are shown: those that are too much without their bytes."""
        return tuple(map(self._take, pictures))

    def _take(self, picture: Picture) -> Picture:
        if len(picture.data_url) > self._left:
            return Picture(picture.name, "", f"{picture.caption}; not shown, as the page has many")
        self._left -= len(picture.data_url)
        return picture


def picture_of(data: bytes, name: str = "", n_bytes: int | None = None) -> Picture | None:
    """The image that some bytes are; None for what does not begin as PNG, JPEG, GIF or WebP.

    Args:
        data: the bytes, or the first of them.
        name: where they were found.
        n_bytes: how many there are, if these are not all.
    """
    kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
    if kind is None or (kind == "WEBP" and data[8:12] != b"WEBP"):
        return None
    size = len(data) if n_bytes is None else n_bytes
    if size > MAX_BYTES:
        return Picture(name, "", f"{kind} of {size:,} bytes; images of more than {MAX_BYTES // 1024} KiB are not shown")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[kind]) as image:
                width, height = image.size
                image.verify()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        return Picture(name, "", f"{kind} of {size:,} bytes that is damaged ({type(error).__name__}); it is not shown")
    if width * height > MAX_PIXELS:
        return Picture(name, "", f"{kind} of {width} x {height} pixels; more than {MAX_PIXELS:,} are not shown")
    url = f"data:image/{kind.lower()};base64,{b64encode(data).decode()}"
    return Picture(name, url, f"{kind}, {width} x {height}, {size:,} bytes", width, height)


def pictures_in(value: Any, name: str = "", depth: int = 0) -> Iterator[Picture]:
    """The images in the texts of a JSON value: base64, with or without ``data:image/png;base64,`` before it."""
    if isinstance(value, str):
        text = value.partition(",")[2] if value.startswith("data:image/") else value
        if text.startswith(_BASE64_MAGIC) and (found := _decoded(text, name)) is not None:
            yield found
    elif isinstance(value, dict) and depth < MAX_DEPTH:
        for key, inner in value.items():
            yield from pictures_in(inner, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, list) and depth < MAX_DEPTH:
        for index, inner in enumerate(value):
            yield from pictures_in(inner, f"{name}[{index}]", depth + 1)


def _decoded(text: str, name: str) -> Picture | None:
    n_bytes = len(text) * 3 // 4
    try:
        # A whole image only if it may be shown; of a larger one the beginning tells what it is.
        data = b64decode(text if n_bytes <= MAX_BYTES + 3 else text[:64], validate=True)
    except (Base64Error, ValueError):
        return None
    return picture_of(data, name, len(data) if n_bytes <= MAX_BYTES + 3 else n_bytes)
