"""Requests, checked against AWS's own service model, which botocore carries, with the words of AWS's errors.

Source: the service model of SageMaker (``service-2.json``); the texts are those of the services' common validation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
import regex
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape

from rayxform.errors import RequestRefusedError

Members = Mapping[str, Any]

_ANY_VALUE: Final = {"TransformInstanceType"}
"""Shapes whose lists of values grow with AWS's machines, which have no effect here."""
_INTEGERS: Final = {"integer": 32, "long": 64}


class ServiceShapes:
    """The shapes of the operations that are served."""

    def __init__(self, operations: Iterator[str] | list[str]) -> None:
        """Load them; the whole model takes a fifth of a second."""
        model = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))
        self._inputs: dict[str, Shape] = {name: model.operation_model(name).input_shape for name in operations}
        self.api_version: str = model.api_version

    def parse(self, operation: str, body: bytes) -> dict[str, Any]:
        """The members of a request; those that are null or that the model does not know are left out, as AWS does.

        Raises:
            RequestRefusedError: it is not JSON, or a member has a wrong type (SerializationException), or one is missing or
                out of its limits (ValidationException, with all that is found).
        """
        try:
            members = msgspec.json.decode(body) if body.strip() else {}
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise _wrong_type("Unable to parse the request body as JSON") from None
        cleaned: dict[str, Any] = _take(self._inputs[operation], members)
        if found := list(_violations(self._inputs[operation], cleaned, "")):
            noun = "validation error" if len(found) == 1 else "validation errors"
            raise RequestRefusedError.invalid(f"{len(found)} {noun} detected: {'; '.join(found)}")
        return cleaned


def _take(shape: Shape, value: Any) -> Any:
    """The value as its shape has it."""
    return _TAKERS[shape.type_name](shape, value)


def _take_structure(shape: Any, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong_type(f"{_token(value)} found where a structure or map was expected.")
    known = ((name, value[name]) for name in shape.members if value.get(name) is not None)
    return {name: _take(shape.members[name], member) for name, member in known}


def _take_map(shape: Any, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong_type(f"{_token(value)} found where a structure or map was expected.")
    return {name: _take(shape.value, member) for name, member in value.items() if member is not None}


def _take_list(shape: Any, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong_type(f"{_token(value)} found where a list was expected.")
    return [_take(shape.member, member) for member in value if member is not None]


def _take_integer(shape: Any, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    bits = _INTEGERS[shape.type_name]
    if isinstance(value, bool) or not isinstance(value, int) or not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
        raise _wrong_type(f"{_token(value)} can not be converted to an Integer")
    return value


def _take_string(_shape: Any, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type(f"{_token(value)} can not be converted to a String")
    if not _is_unicode(value):
        raise _wrong_type("a string holds half a surrogate pair")
    return value


def _take_boolean(_shape: Any, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(f"{_token(value)} can not be converted to a Boolean")
    return value


def _take_timestamp(_shape: Any, value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) < 1e12:
        raise _wrong_type(f"{_token(value)} can not be converted to milliseconds since epoch")
    return float(value)


_TAKERS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "structure": _take_structure,
    "map": _take_map,
    "list": _take_list,
    "integer": _take_integer,
    "long": _take_integer,
    "string": _take_string,
    "boolean": _take_boolean,
    "timestamp": _take_timestamp,
}


def _token(value: Any) -> str:
    """What AWS's parser calls a value of a wrong type."""
    names = {dict: "START_OBJECT", list: "START_ARRAY", str: "STRING_VALUE", bool: f"{str(value).upper()}_VALUE"}
    return names.get(type(value), "NUMBER_VALUE")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _violations(shape: Any, value: Any, path: str) -> Iterator[str]:
    """What is wrong with a value, in AWS's words."""
    if shape.type_name == "structure":
        for name in shape.required_members:
            if name not in value:
                yield f"Value null at '{_below(path, name)}' failed to satisfy constraint: Member must not be null"
        for name, member in value.items():
            yield from _violations(shape.members[name], member, _below(path, name))
        return
    for rule in _broken_rules(shape, value):
        shown = f"'{value}'" if isinstance(value, (str, int)) else msgspec.json.encode(value).decode()
        yield f"Value {shown[:1024]} at '{path}' failed to satisfy constraint: Member must {rule}"
    if shape.type_name == "list":
        for number, member in enumerate(value, start=1):
            yield from _violations(shape.member, member, f"{path}.{number}.member")
    elif shape.type_name == "map":
        for name, member in value.items():
            yield from (f"Map key: {one}" for one in _violations(shape.key, name, path))
            yield from (f"Map value: {one}" for one in _violations(shape.value, member, path))


def _broken_rules(shape: Any, value: Any) -> Iterator[str]:
    limits, is_number = shape.metadata, shape.type_name in _INTEGERS
    if shape.type_name in {"boolean", "timestamp"}:
        return
    if "enum" in limits and value not in limits["enum"] and shape.name not in _ANY_VALUE:
        yield f"satisfy enum value set: [{', '.join(limits['enum'])}]"
    size, what = (value, "value") if is_number else (len(value), "length")
    if "min" in limits and size < limits["min"]:
        yield f"have {what} greater than or equal to {limits['min']}"
    if "max" in limits and size > limits["max"]:
        yield f"have {what} less than or equal to {limits['max']}"
    # A string that is too long is not matched: some patterns would take long over it.
    elif "pattern" in limits and not regex.fullmatch(limits["pattern"], value):
        yield f"satisfy regular expression pattern: {limits['pattern']}"


def _below(path: str, name: str) -> str:
    camel = name[0].lower() + name[1:]
    return f"{path}.{camel}" if path else camel


def _wrong_type(why: str) -> RequestRefusedError:
    return RequestRefusedError("SerializationException", why)
