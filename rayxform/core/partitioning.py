"""``Rayxform.Partition``: which partition a joined record belongs to, and what of it the partition's file holds.

A partition is a folder for each of its keys, ``key=value``, as Hive, Spark and pyarrow lay them out:

- A value is URL-quoted text (RFC 3986): ``2022/01/01`` → ``date=2022%2F01%2F01``. Numbers, true and false are their JSON text.
- Null, an attribute that is not there, and an empty text are ``__HIVE_DEFAULT_PARTITION__`` (Hive,
  ``hive.exec.default.partition.name``; Spark cannot read ``date=`` at all).
- The files leave a partition's key out, since its folder holds it (Hive, "partitioned columns").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from rayxform.core.batching import Prepared
from rayxform.core.inference_ids import Stamp
from rayxform.core.joining import JsonProcessing, Processing
from rayxform.core.jsonpath import JsonValue, Name, compile_path, decode_level, encode_sorted, encode_value, excerpt
from rayxform.core.splitting import Records
from rayxform.errors import JsonPathError, RecordError

DEFAULT_PARTITION = "__HIVE_DEFAULT_PARTITION__"
SEPARATOR = b"\t"
"""Between a record's partition, which holds no tab, and the record, in the lines of a part."""

_LONGEST_NAME_BYTES = 255  # POSIX's usual NAME_MAX; S3 alone would take longer ones
# pyarrow and DuckDB take quotes off a key, Polars does not; so only what would not be read as a key, or be a pattern, is.
_UNSAFE_IN_KEY = re.compile(r"[\x00-\x1f\x7f%/=\\*?\[\]]|^[._]")

_decode_text = msgspec.json.Decoder(str).decode


@dataclass(frozen=True)
class Partitioning:
    """The keys of a data set's partitions.

    Attributes:
        paths: for each key the names that lead to its value, from the joined record down; the last one is the key.
    """

    paths: tuple[tuple[str, ...], ...]

    @property
    def first_names(self) -> frozenset[str]:
        """The attributes of the joined record that the keys are looked up in."""
        return frozenset(path[0] for path in self.paths)

    @property
    def pattern(self) -> str:
        """The folders of every partition as a glob pattern: ``date=*``."""
        return "/".join(f"{_quoted_key(path[-1])}=*" for path in self.paths)

    def split(self, joined: JsonValue, result: JsonValue) -> tuple[str, JsonValue]:
        """A record's partition, and the rest of it.

        Args:
            joined: the joined record, before OutputFilter.
            result: what OutputFilter makes of it.

        Returns:
            The partition's folder ("date=2022-01-01/label=6"), and the result without the keys of it.

        Raises:
            RecordError: a key's value is an object or an array, or is too long for a folder's name; the result is no object,
                or has another value under a key; without a place.
        """
        rest = dict(_attributes(result))
        folders = []
        for path in self.paths:
            value = _look_up(joined, path)
            folders.append(_folder(path, value))
            own = rest.pop(path[-1], None)
            if own is not None and bytes(own).strip() != (b"null" if value is None else bytes(value).strip()):
                raise RecordError(
                    f"the record has an attribute {path[-1]!r}, {excerpt(own)}, which is not the value of the partition key "
                    f"{path[-1]!r} at {_shown(path)}; leave it out by OutputFilter, or partition by another path"
                )
        return "/".join(folders), rest


@dataclass(frozen=True)
class PartitionedProcessing:
    """A job's processing, whose results are lines of a partition, a tab and the rest of the record.

    Attributes:
        before: what is done with a record; it keeps what the partitions need of it.
        results: the join and OutputFilter.
        partitioning: the keys.
    """

    before: Processing
    results: JsonProcessing
    partitioning: Partitioning

    cuts_responses = True
    takes_json = True

    @property
    def sends_raw_records(self) -> bool:
        """As without partitions."""
        return self.before.sends_raw_records

    @property
    def reads_records(self) -> bool:
        """As without partitions."""
        return self.before.reads_records

    def prepare(self, records: Records) -> Prepared:
        """Filter records for the model and cut out what the join and the partitions need of them."""
        return self.before.prepare(records)

    def finish(self, prediction: bytes | msgspec.Raw, source: bytes | None, stamp: Stamp | None = None) -> bytes:
        """One line of a part: the record's partition, a tab, and the record as the partition's file holds it.

        Raises:
            RecordError: the prediction cannot be joined or filtered, or the record has no partition; without a place.
        """
        joined = self.results.joined(prediction, source, stamp)
        folder, rest = self.partitioning.split(joined, self.results.output_filter.select(joined))
        encode = encode_sorted if self.results.sorts_keys and self.results.join else encode_value
        return SEPARATOR.join((folder.encode(), encode(rest)))

    def finish_lines(self, predictions: Sequence[bytes | msgspec.Raw], source: bytes | None) -> bytes | None:
        """Each has to be looked at."""
        del predictions, source
        return None


def make_partitioning(by: Sequence[str]) -> Partitioning:
    """The partitions that JSONPaths name.

    Args:
        by: JSONPaths of names only; the last name is the key, so ``$.a.b`` gives folders ``b=…``.

    Raises:
        JsonPathError: a path is not JSONPath, or not of names only.
    """
    return Partitioning(tuple(map(_names, by)))


def _names(expression: str) -> tuple[str, ...]:
    names = tuple(step.name for step in compile_path(expression).steps if isinstance(step, Name))
    if not names or len(names) != len(compile_path(expression).steps):
        reason = "a partition's value is an attribute, named by every step on the way to it: $.date or $.SageMakerOutput.label"
        raise JsonPathError(expression, min(1, len(expression) - 1), reason)
    return names


def _look_up(value: JsonValue | None, path: tuple[str, ...]) -> msgspec.Raw | None:
    """The value at a path, or None if it is null or not there."""
    for name in path:
        if value is None:
            return None
        value = _attributes(value, _shown(path)).get(name)
        value = None if value is not None and bytes(value).strip() == b"null" else value
    return value  # type: ignore[return-value] # a member of a decoded object is a Raw


def _attributes(value: JsonValue, path: str = "") -> dict[str, msgspec.Raw]:
    if isinstance(value, msgspec.Raw) and bytes(memoryview(value)[:64]).lstrip()[:1] == b"{":
        value = decode_level(value)
    if isinstance(value, dict):
        return value
    if path:
        raise RecordError(f"the partition key's path {path} leads through {excerpt(value)}, which is not a JSON object")
    raise RecordError(f"the result is {excerpt(value)}, but a partitioned data set holds JSON objects; change OutputFilter")


def _folder(path: tuple[str, ...], value: msgspec.Raw | None) -> str:
    name = f"{_quoted_key(path[-1])}={_quoted(path, value)}"
    if len(name.encode()) > _LONGEST_NAME_BYTES:
        raise RecordError(
            f"the partition's folder would have a name of {len(name.encode())} bytes, over the limit of {_LONGEST_NAME_BYTES}: "
            f"{_shown(path)} is {excerpt(value or msgspec.Raw(b''))}; partition by a shorter value"
        )
    return name


def _quoted(path: tuple[str, ...], value: msgspec.Raw | None) -> str:
    text = "" if value is None else bytes(value).strip().decode()
    if text.startswith(("{", "[")):
        kind = "an object" if text[0] == "{" else "an array"
        raise RecordError(
            f"the partition key {path[-1]!r} is {kind}, {excerpt(value or msgspec.Raw(b''))}, at {_shown(path)}; "
            "partition by a text, a number, true or false"
        )
    if text.startswith('"'):
        text = _decode_text(text)
        # What only looks like the name of no value, as DuckDB writes it.
        text = "%5F" + text[1:] if text == DEFAULT_PARTITION else quote(text, safe="")
    return text or DEFAULT_PARTITION


def _quoted_key(key: str) -> str:
    return _UNSAFE_IN_KEY.sub(lambda found: f"%{ord(found[0]):02X}", key)


def _shown(path: tuple[str, ...]) -> str:
    return "$" + "".join(f".{name}" if name.isidentifier() else f"[{name!r}]" for name in path)
