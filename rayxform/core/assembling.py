"""From a response to output bytes: cut it back into one prediction a record, and put finished records together.

Source: AWS API, TransformOutput.AssembleWith; the doubly encoded response is the seed document's own ``output_fn``.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rayxform.core.lines import find_lines, is_utf8, line_lengths
from rayxform.core.media import is_json, media_type
from rayxform.errors import ResponseError

_NOT_JSON = (msgspec.DecodeError, RecursionError)
"""What reading JSON raises; the second where it is nested some 900 levels deep (RFC 8259, section 9, lets us refuse that)."""

_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_lines = msgspec.json.Decoder(msgspec.Raw).decode_lines
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_string = msgspec.json.Decoder(str).decode


def cut_response(
    response: bytes, n_records: int, accept: str, *, multi_record: bool, may_be_several: bool = False
) -> list[bytes]:
    """One prediction for each record of a request.

    Args:
        response: the response's body.
        n_records: how many records the request held.
        accept: the response's media type: ``application/json`` is cut by array element, everything else by line.
        multi_record: whether the strategy is MultiRecord; the response to a single record is not cut.
        may_be_several: whether a single record may still be answered by several lines, as a whole object that is one record
            is; they are then given as they came.

    Raises:
        ResponseError: the count is off; says what was expected and what came.
    """
    cut = _cut_array if is_json(media_type(accept)) else _cut_lines
    if may_be_several and not _is_json_value(response):
        return _cut_lines(response)
    predictions = cut(response) if multi_record else [response.strip()]
    inner = _doubly_encoded(response)
    if inner is not None and (len(predictions) != n_records or (n_records == 1 and _is_json_container(inner))):
        unwrapped = cut(inner) if multi_record else [inner.strip()]
        predictions = unwrapped if len(unwrapped) == n_records else predictions
    if len(predictions) != n_records:
        unit = "array elements" if cut is _cut_array else "lines"
        excerpt = response[:200].decode("utf-8", "replace")
        raise ResponseError(
            f"expected {n_records} {unit}, one for each record of the request, but got {len(predictions)}; "
            f"return one prediction a record from output_fn (the response begins with {excerpt!r})"
        )
    return predictions


def cut_json_lines(response: bytes, n_records: int) -> list[msgspec.Raw] | None:
    """The predictions of a response of JSON Lines, cut and checked by one pass instead of three for each of them.

    Args:
        response: the response's body.
        n_records: how many records the request held.

    Returns:
        One JSON text in UTF-8 for each record, each a line of its own; None if the response is not simply that, and has to
        be looked at line by line.
    """
    if b"\r" in response or response[:1] == b'"' or not is_utf8(response):
        return None
    try:
        values = _decode_lines(response)
    except _NOT_JSON:
        return None
    if len(values) != n_records:
        return None
    whole = response if response.endswith(b"\n") else response + b"\n"
    lengths = [length for starts in find_lines(whole, 0, n_records) for length in line_lengths(starts)]
    # Values that are as long as the lines, one by one, are the lines: one that began later in its line would end in the next,
    # and so would all after it, up to the last, behind which there is nothing.
    return values if lengths == list(map(len, values)) else None


def assemble(results: Sequence[bytes], *, newline_ended: bool) -> list[bytes]:
    """The results as they stand in the output object, in pieces that are written one after another.

    Args:
        results: finished records, or whole responses, in order.
        newline_ended: whether each ends with a newline (``AssembleWith: Line``); one that ends with it keeps just that one.
    """
    if not newline_ended:
        return list(results)
    if len(results) == 1:  # it may be a response of megabytes, which are not copied for one newline
        return list(results) if results[0].endswith(b"\n") else [results[0], b"\n"]
    if any(result.endswith(b"\n") for result in results):
        return [b"".join(result if result.endswith(b"\n") else result + b"\n" for result in results)]
    return [b"\n".join([*results, b""])] if results else []


def _cut_lines(response: bytes) -> list[bytes]:
    lines = response.split(b"\n")
    return [line.strip() for line in lines if line and not line.isspace()]


def _cut_array(response: bytes) -> list[bytes]:
    try:
        return [bytes(element) for element in _decode_array(response)]
    except _NOT_JSON:
        return [response.strip()]


def _is_json_value(text: bytes) -> bool:
    try:
        _decode_raw(text)
    except _NOT_JSON:
        return False
    return True


def _is_json_container(text: bytes) -> bool:
    return text.lstrip()[:1] in (b"{", b"[") and _is_json_value(text)


def _doubly_encoded(response: bytes) -> bytes | None:
    """The content of a response that is one JSON string, as ``output_fn`` returns from ``json.dumps`` of joined lines."""
    if response.lstrip()[:1] != b'"':
        return None
    try:
        return _decode_string(response).encode()
    except (msgspec.DecodeError, UnicodeError):
        return None
