"""Every exception that rayxform raises, split by whose fault it is.

::

    RayxformError
    ├── JobError                 the job cannot be started: refused, exit code 2
    │   ├── JobFileError         members of the job file are wrong; carries every problem found
    │   ├── JsonPathError        a filter is not a supported JSONPath; carries the column
    │   ├── InputNotFoundError   the input URL names no object
    │   ├── ModelSourceError     no usable model: archive missing, damaged, unsafe, or without its entry point
    │   ├── OutputRefusedError   the output folder cannot be written
    │   ├── LocationRefusedError  the job names what lies outside of where it may read and write
    │   ├── JobBusyError         another run of the same job is going on
    │   ├── PlanChangedError     the job, its model or its input is not what it was when this job was cut short
    │   ├── ResourceError        more workers, CPUs, GPUs or memory than there are
    │   └── ClusterError         there is no job server at the address, or it does not take the job
    ├── RecordError              one record cannot be sent, joined or filtered; carries object, record and offset
    │   ├── RecordTooLargeError  the record alone is over MaxPayloadInMB
    │   └── FrameError           a TFRecord or RecordIO frame is damaged, so that nothing behind it can be read
    ├── ModelError               the model's code failed; carries the user's own traceback
    │   ├── ModelLoadError       model_fn raised, inference.py failed on import, or a model server is not ready
    │   ├── InvocationError      one of the user's functions raised, crashed or hung, or a model server did not answer
    │   └── ResponseError        the response cannot be cut back into the request's records
    ├── RequestRefusedError      the endpoint refuses a call; carries AWS's code and the HTTP status
    ├── ServerSettingsError      the endpoint cannot be started as it is settled
    ├── StorageError             an object cannot be listed, read, written or published
    └── EngineError              Ray failed under the job

A message carries the value, the limit, the place and the remedy. In messages records count from 1, as an editor counts
lines, and byte offsets from 0. Exceptions of other libraries are translated at the module that calls the library and
never leave the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class RayxformError(Exception):
    """The base of every exception that rayxform raises on purpose."""


class JobError(RayxformError):
    """The job is refused before anything is started."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a job file.

    Attributes:
        path: the member's path, in AWS's names, dots between them ("TransformInput.SplitType").
        value: the value that was found, or None where the member is missing.
        limit: what is allowed there, in words ("an integer from 0 to 100").
        remedy: what to write instead.
    """

    path: str
    value: Any
    limit: str
    remedy: str

    def __str__(self) -> str:
        found = "is missing" if self.value is None else f"is {self.value!r}"
        return f"{self.path} {found}; allowed: {self.limit}. {self.remedy}"


class JobFileError(JobError):
    """Members of the job file are wrong; ``problems`` holds all of them, and the message has one line for each."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class JsonPathError(JobError):
    """A filter is not a supported JSONPath; the message draws a caret under the column.

    Attributes:
        expression: the whole filter.
        column: the place of the fault in it, from 0.
        reason: what is wrong there and what to write instead.
    """

    def __init__(self, expression: str, column: int, reason: str) -> None:
        super().__init__(f"{reason}\n    {expression}\n    {' ' * column}^")
        self.expression = expression
        self.column = column
        self.reason = reason


class InputNotFoundError(JobError):
    """The input URL names no object."""


class ModelSourceError(JobError):
    """There is no usable model: an archive is missing, damaged or unsafe, or the entry point is not in it."""


class OutputRefusedError(JobError):
    """The output folder cannot be written, which is found before anything is started."""


class LocationRefusedError(JobError):
    """The job names a location outside of those that whoever runs it allows."""


class JobBusyError(JobError):
    """Another run of the same job is going on; the message names its host and process, and what to do."""


class PlanChangedError(JobError):
    """A job that was cut short cannot go on, because it, its model or its input is not what it was; names what changed."""


class ResourceError(JobError):
    """The job asks for more workers, CPUs, GPUs or memory than there are."""


class ClusterError(JobError):
    """A job cannot be submitted: there is no Ray job server at the address, or it does not take the job."""


class RecordError(RayxformError):
    """One record cannot be sent, joined or filtered.

    Attributes:
        reason: what is wrong and what to do about it.
        record: the record's number in its object, from 0 (messages print it from 1).
        offset: the byte offset of the record's first byte in its (uncompressed) object, or None where it is not known.
        object: the key or path of the object, or None until a caller that knows it adds it with ``at``.
    """

    def __init__(self, reason: str, record: int = 0, offset: int | None = None, object: str | None = None) -> None:  # noqa: A002 - AWS's word
        super().__init__(reason, record, offset, object)
        self.reason = reason
        self.record = record
        self.offset = offset
        self.object = object

    def __str__(self) -> str:
        place = f"record {self.record + 1}"
        if self.offset is not None:
            place += f" (byte {self.offset})"
        return f"{self.object}: {place}: {self.reason}" if self.object is not None else f"{place}: {self.reason}"


class RecordTooLargeError(RecordError):
    """The record alone is over MaxPayloadInMB."""


class FrameError(RecordError):
    """A TFRecord or RecordIO frame is damaged or cut short; nothing behind it in its object can be read."""


class ModelError(RayxformError):
    """The model's code failed.

    Attributes:
        user_traceback: the traceback from the user's first frame on, or what a model server said; "" where there is none.
    """

    def __init__(self, message: str, user_traceback: str = "") -> None:
        super().__init__(message, user_traceback)
        self.message = message
        self.user_traceback = user_traceback

    def __str__(self) -> str:
        return f"{self.message}\n{self.user_traceback}".rstrip()


class ModelLoadError(ModelError):
    """model_fn raised, inference.py failed on import, or a model server did not get ready."""


class InvocationError(ModelError):
    """input_fn, predict_fn, output_fn or transform_fn raised, crashed or hung, or a model server gave an error or no answer.

    Attributes:
        is_final: whether the same request would fail again for certain, so that it is not retried.
        is_servers_fault: whether the server could not answer any request, so that no record is to blame.
        is_out_of_memory: whether memory ran out, so that fewer records may fit.
        ended_process: whether the model's process ended at this request, or was ended because it did not answer in time.
    """

    def __init__(
        self,
        message: str,
        user_traceback: str = "",
        *,
        is_final: bool = False,
        is_servers_fault: bool = False,
        is_out_of_memory: bool = False,
        ended_process: bool = False,
    ) -> None:
        super().__init__(message, user_traceback)
        self.is_final = is_final
        self.is_servers_fault = is_servers_fault
        self.is_out_of_memory = is_out_of_memory
        self.ended_process = ended_process


class ResponseError(ModelError):
    """The response cannot be cut back into the records of its request."""


class RequestRefusedError(RayxformError):
    """The endpoint refuses a call.

    Attributes:
        code: AWS's error code ("ValidationException").
        status: the HTTP status.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status

    @classmethod
    def invalid(cls, message: str) -> RequestRefusedError:
        """What AWS calls most of what is wrong with a request: a ValidationException."""
        return cls("ValidationException", message)


class ServerSettingsError(RayxformError):
    """The endpoint cannot be started: its settings are wrong, or would let anybody run code here."""


class StorageError(RayxformError):
    """An object cannot be listed, read, written or published; the message names its URL and the cause."""


class EngineError(RayxformError):
    """Ray failed under the job, for a reason that lies in neither the records nor the model."""
