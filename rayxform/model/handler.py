"""A model behind four functions: loads an ``inference.py`` as the SageMaker PyTorch toolkit does, and answers requests.

Source of the rules: sagemaker-inference-toolkit ``transformer.py`` and sagemaker-pytorch-inference-toolkit
``default_pytorch_inference_handler.py``. Differences, each on purpose:

- The context is each request's own; the toolkit passes the one it was loaded with.
- predict_fn and transform_fn run without gradients if torch is loaded. Code that wants one asks with ``enable_grad``.
- A wrong signature is found when the model is loaded, not at the first request.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from rayxform.core.media import is_csv, is_json
from rayxform.errors import InvocationError, ModelLoadError
from rayxform.model import codecs, runtime
from rayxform.model.context import InvocationContext
from rayxform.model.protocol import Response
from rayxform.model.retrying import retry_at_once
from rayxform.model.staging import load_input
from rayxform.model.user_code import UserFunction, import_entry_point

_PARAMETERS: Final = {
    "pre_model_fn": ("model_dir",),
    "model_fn": ("model_dir",),
    "model_warmup_fn": ("model_dir", "model"),
    "input_fn": ("body", "content_type"),
    "predict_fn": ("data", "model"),
    "output_fn": ("prediction", "accept"),
    "transform_fn": ("model", "body", "content_type", "accept"),
}
_DEFAULTS: Final[dict[str, Callable[..., Any]]] = {
    "model_fn": codecs.default_model_fn,
    "input_fn": codecs.default_input_fn,
    "predict_fn": codecs.default_predict_fn,
    "output_fn": codecs.default_output_fn,
}
RUNS_AHEAD: Final = "INPUT_FN_RUNS_AHEAD"
"""The name that an entry point sets to True to say that its input_fn may work on the next request, in another thread, while
predict_fn works on this one. On SageMaker it is a name like any other."""

_TRAINING_MODE: Final = (
    "model_fn returned a model in training mode: predictions then depend on the other records of the mini-batch, and "
    "on chance where it has dropout. Call model.eval() in model_fn."
)
_WHAT_TO_RETURN: Final = "Return str, bytes, or a tuple (body, content_type); json.dumps makes a str of lists and dicts."


def thread_variables(threads: int | None) -> dict[str, str]:
    """The variables by which OpenMP and MKL learn with how many threads to compute; none where that is left to them."""
    return {} if threads is None else dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))


class Handler:
    """A loaded model that answers requests, one at a time.

    Attributes:
        model_dir: the unpacked model, as model_fn got it.
        runs_ahead: whether ``read_input`` may be called for one request while another one is answered.
    """

    def __init__(self, model_dir: Path, functions: Mapping[str, UserFunction], *, runs_ahead: bool = False) -> None:
        """Use ``load``."""
        self.runs_ahead = runs_ahead and "input_fn" in functions
        self.model_dir = str(model_dir)
        self._functions = functions
        self._model: Any = None
        self._gpu_id: int | None = None
        self._runtime = runtime.Runtime()
        self._warnings: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know about the model, though it runs; a sentence each. Requests may add some."""
        return (*self._warnings, *self._runtime.warnings)

    @property
    def has_input_fn(self) -> bool:
        """Whether ``read_input`` may be called: transform_fn reads its input itself."""
        return "input_fn" in self._functions

    @property
    def micro_batch_sizes(self) -> tuple[int, ...]:
        """In pieces of how many records each of the model's modules computes, where that is known and was asked for."""
        return tuple(one.size for one in self._runtime.micro_batches if one.size is not None)

    @classmethod
    def load(
        cls,
        model_dir: Path,
        entry_point: Path | None,
        environment: Mapping[str, str],
        threads: int | None = None,
        arithmetic: runtime.Arithmetic | None = None,
        *,
        loads_model: bool = True,
    ) -> Handler:
        """Import the entry point and call model_fn, once.

        This changes the process as a model server's would be: os.environ, sys.path, sys.modules, torch's threads.

        Args:
            model_dir: the unpacked model; model_fn gets it as a str.
            entry_point: the entry point's file, or None for the defaults alone.
            environment: variables for os.environ, the job's and SageMaker's (see ``sagemaker_environment``).
            threads: how many threads torch, OpenMP and MKL compute with; None leaves it to them. OMP_NUM_THREADS in
                ``environment`` wins.
            arithmetic: how torch modules are to compute; None for as they are.
            loads_model: whether model_fn is called; without it there is only ``read_input``.

        Raises:
            ModelLoadError: the entry point failed on import, its functions do not fit together or cannot be called, or
                model_fn raised; it carries the user's own traceback. Or what it returned cannot compute as asked.
        """
        if "OMP_NUM_THREADS" in environment:
            threads = None
        # Before the user's code imports torch: OpenMP reads them once, when it is loaded.
        os.environ.update({**thread_variables(threads), **environment})
        module = None if entry_point is None else import_entry_point(entry_point)
        runtime.set_threads(threads)
        handler = cls(model_dir, _resolve(module), runs_ahead=getattr(module, RUNS_AHEAD, None) is True)
        if loads_model:
            handler._load_model(threads, arithmetic or runtime.Arithmetic())
        return handler

    def read_input(self, body: bytes, content_type: str, context: InvocationContext) -> Any:
        """Do the first part of a request, that of input_fn; gives what ``transform`` takes as ``read``.

        Args, and what is raised, are those of ``transform``.
        """
        return self._read(_decoded(body, content_type), content_type, self._with_gpu(context))

    def transform(
        self,
        body: bytes | memoryview,
        content_type: str,
        accept: str,
        context: InvocationContext,
        staged: bytes | memoryview | None = None,
        read: Callable[[], Any] | None = None,
    ) -> Response:
        """Answer one request.

        Args:
            body: the request's body. For ``application/json`` and ``text/csv`` the user's functions get it as str, for
                every other type as bytes, JSON Lines included.
            content_type: the request's Content-Type.
            accept: the request's Accept.
            context: passed to each function that has a parameter for it, with torch's GPU where it names none.
            staged: what the input_fn of another process made of the body, which then is not looked at (see ``staging``).
            read: gives, or raises, what ``read_input`` did; None where it has not been called.

        Raises:
            InvocationError: a function raised, or returned what is no response; the message names the function, and the
                error carries the user's own traceback.
        """
        payload = b"" if staged is not None else _decoded(bytes(body), content_type)  # which copies nothing of bytes
        again = None if staged is None else functools.partial(load_input, staged)
        context = self._with_gpu(context)
        try:
            return self._respond(payload, content_type, accept, context, read or again)
        except InvocationError as error:
            if not self._runtime.layout.is_cause_of(error):
                raise _with_hint(error) from error.__cause__
        # From the body on, since predict_fn may have changed its input in place before it failed.
        self._runtime.give_up_layout()
        return self._respond(payload, content_type, accept, context, again)

    def run_ahead(self, body: bytes | memoryview, content_type: str, context: InvocationContext) -> None:
        """Do nothing: who has the model in this process asks for one request after the other."""

    def retry(self, ask: Callable[[int], Response], retries: int) -> Response:
        """Ask again at once, since no network lies between."""
        return retry_at_once(ask, retries)

    def close(self) -> None:
        """Do nothing: the model ends with its process."""

    def _load_model(self, threads: int | None, arithmetic: runtime.Arithmetic) -> None:
        self._gpu_id = runtime.gpu_id()
        context = InvocationContext("", 0, 0, 1, "", "", self.model_dir, self._gpu_id)
        if "pre_model_fn" in self._functions:
            self._functions["pre_model_fn"].call((self.model_dir,), context, ModelLoadError)
        self._model = self._functions["model_fn"].call((self.model_dir,), context, ModelLoadError)
        if "model_warmup_fn" in self._functions:
            self._functions["model_warmup_fn"].call((self.model_dir, self._model), context, ModelLoadError)
        self._runtime = runtime.prepare(self._model, threads, arithmetic)
        self._gpu_id = runtime.gpu_id()  # again, as model_fn may have been the first to import torch
        self._warnings = tuple(self._find_warnings())

    def _find_warnings(self) -> list[str]:
        # The default predict_fn calls eval() itself, as the toolkit's does.
        predict = self._functions.get("predict_fn")
        calls_eval = predict is not None and predict.function is codecs.default_predict_fn
        return [_TRAINING_MODE] if not calls_eval and runtime.in_training_mode(self._model) else []

    def _with_gpu(self, context: InvocationContext) -> InvocationContext:
        return context if context.gpu_id is not None else replace(context, gpu_id=self._gpu_id)

    def _read(self, payload: str | bytes, content_type: str, context: InvocationContext) -> Any:
        return self._functions["input_fn"].call((payload, content_type), context, InvocationError)

    def _respond(
        self,
        payload: str | bytes,
        content_type: str,
        accept: str,
        context: InvocationContext,
        read: Callable[[], Any] | None = None,
    ) -> Response:
        functions = self._functions
        if "transform_fn" in functions:
            last = functions["transform_fn"]
            with runtime.no_grad(), self._runtime.around:
                result = last.call((self._model, payload, content_type, accept), context, InvocationError)
        else:
            data = read() if read is not None else self._read(payload, content_type, context)
            with runtime.no_grad(), self._runtime.around:
                prediction = functions["predict_fn"].call((data, self._model), context, InvocationError)
            last = functions["output_fn"]
            result = last.call((prediction, accept), context, InvocationError)
        return _response(result, accept, last.name)


def _resolve(module: ModuleType | None) -> dict[str, UserFunction]:
    own = {name: getattr(module, name) for name in _PARAMETERS if getattr(module, name, None) is not None}
    clash = sorted({"input_fn", "predict_fn", "output_fn"} & own.keys())
    if "transform_fn" in own and clash:
        raise ModelLoadError(
            f"the entry point defines transform_fn and {', '.join(clash)}; SageMaker allows transform_fn alone, or "
            "input_fn, predict_fn and output_fn. Remove one or the other."
        )
    functions = {name: UserFunction.of(name, function, _PARAMETERS[name]) for name, function in own.items()}
    for name, default in _DEFAULTS.items():
        if name not in functions and (name == "model_fn" or "transform_fn" not in functions):
            functions[name] = UserFunction(f"the default {name}", default, takes_context=False)
    return functions


def _decoded(body: bytes, content_type: str) -> str | bytes:
    if not (is_json(content_type) or is_csv(content_type)):
        return body
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvocationError(
            f"the request is not UTF-8 at byte {error.start} (0x{body[error.start]:02x}), as {content_type} has to be. "
            "Convert the input to UTF-8, or set another ContentType: the handler then gets the bytes."
        ) from error


def _response(result: object, accept: str, function: str) -> Response:
    body, content_type = result, accept
    if isinstance(result, tuple):
        if len(result) != 2 or not isinstance(result[1], str):
            kinds = ", ".join(type(part).__name__ for part in result)
            raise InvocationError(f"{function} returned a tuple of ({kinds}). {_WHAT_TO_RETURN}")
        body, content_type = result
    elif hasattr(result, "response") and hasattr(result, "mimetype"):
        # sagemaker-containers' worker.Response, a werkzeug one, which keeps its body as a list of pieces.
        body, content_type = result.response, str(result.mimetype or accept)
        if isinstance(body, (list, tuple)):
            body = b"".join(_encoded(piece, function) for piece in body)
    return Response(_encoded(body, function), content_type)


def _encoded(body: object, function: str) -> bytes:
    if isinstance(body, bytes):
        return body
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body)
    if not isinstance(body, str):
        raise InvocationError(f"{function} returned an object of type {type(body).__name__}. {_WHAT_TO_RETURN}")
    try:
        return body.encode()
    except UnicodeEncodeError as error:
        raise InvocationError(
            f"{function} returned a str that cannot be UTF-8: a lone surrogate at character {error.start}. "
            "Decode with errors='replace', or return bytes."
        ) from error


def _with_hint(error: InvocationError) -> InvocationError:
    if "does not require grad" not in error.message:
        return error
    hint = "rayxform runs predict_fn without gradients; take one inside `with torch.enable_grad():`"
    return InvocationError(f"{error.message}. {hint}", error.user_traceback)
