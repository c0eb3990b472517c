"""Running somebody else's Python: import it, find its functions, call them, and say clearly what went wrong in it."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final

from rayxform.errors import ModelError, ModelLoadError

MODULE_NAME: Final = "inference"
"""What the entry point can be imported as besides its own name, so that classes pickled as ``inference.X`` resolve."""

_OUR_FOLDER: Final = str(Path(__file__).parent) + os.sep
_OUR_FRAME: Final = f'  File "{_OUR_FOLDER}'
_MAX_LINKS: Final = 20
_TORCH_OUT_OF_MEMORY: Final = "OutOfMemoryError"  # torch.OutOfMemoryError, called torch.cuda.OutOfMemoryError before 2.5
# What torch raises as a plain RuntimeError: its CPU allocator, cuBLAS, and calls to the driver past its own allocator.
_OUT_OF_MEMORY_TEXTS: Final = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "HIP out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
# Code of the process itself that a name in the user's folder must not replace.
_NEVER_FORGOTTEN: Final = frozenset({"__main__", "ray", "rayxform"}) | sys.stdlib_module_names


@dataclass(frozen=True)
class UserFunction:
    """A function of the entry point, or the default that stands in for it.

    Attributes:
        name: what messages call it ("predict_fn", "the default predict_fn").
        function: the function itself.
        takes_context: whether it is called with the context after its arguments.
    """

    name: str
    function: Callable[..., Any]
    takes_context: bool

    @classmethod
    def of(cls, name: str, function: Callable[..., Any], parameters: tuple[str, ...]) -> UserFunction:
        """Look at a function's signature, as the toolkit's ``Transformer._run_handler_function`` does.

        One parameter more than ``parameters`` is the context, whatever its name. Unlike the toolkit, one with a default
        other than None is left alone: it is an option of the user's own, such as ``encoding="utf-8"``.

        Raises:
            ModelLoadError: it is not callable, or cannot be called with these arguments.
        """
        if not callable(function):
            raise ModelLoadError(
                f"{name} of the entry point is a {type(function).__name__}, not a function. Define {name} with def."
            )
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            return cls(name, function, takes_context=False)  # written in C, and silent about what it takes
        takes_context = _takes_context(signature, len(parameters))
        try:
            signature.bind(*parameters, *(("context",) if takes_context else ()))
        except TypeError as error:
            raise ModelLoadError(
                f"{name}{signature} cannot be called with ({', '.join(parameters)}): {error}. "
                f"Define it as {name}({', '.join(parameters)}), or with a trailing context."
            ) from error
        return cls(name, function, takes_context)

    def call(self, arguments: tuple[Any, ...], context: object, failure: type[ModelError]) -> Any:
        """Call the function.

        Raises:
            ModelError: of the type ``failure``: the function raised, ``sys.exit`` included. Ctrl-C passes through, and
                so does the SystemExit by which Ray or rayxform end the process on a signal.
        """
        try:
            return self.function(*arguments, *((context,) if self.takes_context else ()))
        except ModelError:
            raise  # a default's own message
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # Rust extensions panic with a BaseException
            if _ends_the_process(error):
                raise
            raise failure(f"{self.name} raised {describe(error)}", user_traceback(error)) from error


def _takes_context(signature: inspect.Signature, n_arguments: int) -> bool:
    positional = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return len(positional) > n_arguments and positional[n_arguments].default in (None, inspect.Parameter.empty)


def import_entry_point(path: Path) -> ModuleType:
    """Import a file by its own name, with its folder first on sys.path, as the toolkit does.

    It is the module ``inference`` as well, unless another file beside it is.

    Modules of the same names that an earlier import left behind, from this folder or another, are forgotten first, so
    that ``import helpers`` in the entry point means the ``helpers.py`` beside it, as it is now.

    Raises:
        ModelLoadError: the file raised, or is not valid Python.
    """
    path = path.resolve()
    folder = str(path.parent)
    sys.path[:] = [folder, *(entry for entry in sys.path if entry != folder)]
    _forget_modules(path.parent)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None:
        raise ModelLoadError(f"{path} is no Python source file. Name a .py file in Model.EntryPoint.")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # what is there after forgetting is the process's own
    if not path.with_name(f"{MODULE_NAME}.py").exists():
        sys.modules[MODULE_NAME] = module
    UserFunction(path.name, _run_module, takes_context=False).call((module, path), None, ModelLoadError)
    return module


def _run_module(module: ModuleType, path: Path) -> None:
    # Compiled from the source each time: a .pyc is told from its source by the second, and an edit can be faster.
    exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - it is what we are for


def _forget_modules(folder: Path) -> None:
    packages = {init.parent.name for init in folder.glob("*/__init__.py")}
    names = ({file.stem for file in folder.glob("*.py")} | packages | {MODULE_NAME}) - _NEVER_FORGOTTEN
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]
    importlib.invalidate_caches()


def describe(error: BaseException) -> str:
    """Return the error's type and the first line of its message: ``ValueError: no such label``."""
    kind = type(error)
    name = (
        kind.__qualname__
        if kind.__module__ in ("builtins", "__main__", MODULE_NAME)
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001 - the user's own __str__
        text = ""
    if isinstance(error, SystemExit):
        return f"SystemExit({text}): it called sys.exit, which would end the worker. Raise an exception instead"
    if isinstance(error, ModuleNotFoundError):
        return f"{name}: {text}. Install it for the workers, or name it in requirements.txt beside the entry point"
    return f"{name}: {text.splitlines()[0]}" if text else name


def user_traceback(error: BaseException) -> str:
    """Return the traceback from the first frame that is neither ours nor the import machinery's; "" where none is."""
    frames = error.__traceback__
    while frames is not None and _is_machinery(frames):
        frames = frames.tb_next
    if frames is None and not isinstance(error, SyntaxError):
        return ""
    return "".join(traceback.TracebackException(type(error), error, frames).format()).rstrip()


def user_frames(dump: str) -> str:
    """Return what faulthandler wrote, each thread down to the user's first frame, without threads that are not the user's."""
    blocks = []
    for block in dump.strip().split("\n\n"):
        lines = []
        for line in block.splitlines():
            if line.startswith(_OUR_FRAME):
                break
            lines.append(line)
        has_frames = any(line.startswith('  File "') for line in lines)
        if has_frames or "most recent call first" not in block:
            blocks.append("\n".join(lines))
    return "\n".join(blocks)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, the process's or a GPU's; the user's code may have wrapped the exception that said so."""
    link: BaseException | None = error
    for _ in range(_MAX_LINKS):
        if link is None:
            return False
        if isinstance(link, MemoryError) or type(link).__name__ == _TORCH_OUT_OF_MEMORY:
            return True
        if isinstance(link, RuntimeError) and any(text in str(link) for text in _OUT_OF_MEMORY_TEXTS):
            return True
        link = link.__cause__ or link.__context__
    return False


def _is_machinery(frame: TracebackType) -> bool:
    filename = frame.tb_frame.f_code.co_filename
    return filename.startswith((_OUR_FOLDER, "<frozen importlib"))


def _ends_the_process(error: BaseException) -> bool:
    """Tell a SystemExit on a signal, which surfaces inside the user's function, from one that the function raised."""
    if not isinstance(error, SystemExit) or error.__traceback__ is None:
        return False
    *_, (last, _line) = traceback.walk_tb(error.__traceback__)
    return str(last.f_globals.get("__name__", "")).startswith(("ray.", "rayxform."))
