"""JSON texts as a join takes them: checked, on one line, and cut down to what it needs of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import msgspec

from rayxform.core.lines import Lines
from rayxform.errors import RecordError

OUTPUT = "SageMakerOutput"
INPUT = "SageMakerInput"

decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode


def sources_of(lines: Lines, needed: tuple[str, ...] | None) -> list[bytes]:
    """What a join needs of each line; the named attributes without an object of Python's for every other one.

    Args:
        lines: JSON objects in UTF-8.
        needed: attributes; None for all of them.

    Raises:
        msgspec.DecodeError: a line is no JSON object.
        RecursionError: one is nested some 900 levels deep.
    """
    decode = None if needed is None else _decoder_of(needed)
    if decode is None:
        return [source_of(decode_object(line), needed) for line in lines.views()]
    return [*map(_encode, map(decode, lines.views()))]


def source_of(value: msgspec.Raw | dict[str, msgspec.Raw], needed: tuple[str, ...] | None) -> bytes:
    """What a join needs of a record, of which an object has attributes."""
    if isinstance(value, dict):
        if needed is None:
            return _on_one_line(_encode({name: raw for name, raw in value.items() if name != OUTPUT}))
        return _on_one_line(_encode({name: value[name] for name in needed if name in value}))
    return _on_one_line(bytes(value)) if needed is None or INPUT in needed else b"null"


def parse(text: bytes, what: str) -> msgspec.Raw | dict[str, msgspec.Raw]:
    """A JSON text, checked; an object with its attributes.

    Raises:
        RecordError: it is not valid JSON in UTF-8, or nested deeper than can be read (RFC 8259, sections 8.1 and 9).
    """
    try:
        text.isascii() or text.decode()
        return decode_object(text) if text.lstrip()[:1] == b"{" else _decode_raw(text)
    except RecursionError:
        begin = text[:60].decode("utf-8", "replace")
        raise RecordError(f"the {what} is nested too deeply, over some 900 levels; it begins with {begin!r}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        excerpt = text[:60].decode("utf-8", "replace") + ("..." if len(text) > 60 else "")
        reason = f"the {what} is not valid JSON: {error}; it begins with {excerpt!r}"
        if text.startswith(b"\xef\xbb\xbf"):
            reason += "; remove the byte order mark at the beginning of the object"
        raise RecordError(reason) from None


def parse_prediction(prediction: bytes | msgspec.Raw) -> msgspec.Raw:
    """A prediction, checked, on one line."""
    if isinstance(prediction, msgspec.Raw):
        return prediction
    try:
        prediction.isascii() or prediction.decode()
        _decode_raw(prediction)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        parse(prediction, "prediction")
        raise
    return msgspec.Raw(_on_one_line(prediction.strip()))


def _on_one_line(value: bytes) -> bytes:
    """The value without line breaks; valid JSON has none inside its strings, so no content is lost (RFC 8259, section 7)."""
    return value.translate(None, b"\r\n") if b"\n" in value or b"\r" in value else value


@lru_cache(maxsize=8)
def _decoder_of(names: tuple[str, ...]) -> Callable[[bytes | memoryview], msgspec.Struct] | None:
    """What reads the attributes of these names of a JSON object, as it stands there; None if msgspec takes no such name."""
    fields = [(f"field_{index}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for index in range(len(names))]
    rename = {field: name for (field, _, _), name in zip(fields, names, strict=True)}
    try:
        kept = msgspec.defstruct("Kept", fields, rename=rename, gc=False)
    except ValueError:  # it has a quote, a backslash or a control character
        return None
    return msgspec.json.Decoder(kept).decode
