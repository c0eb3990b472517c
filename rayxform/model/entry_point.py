"""Where the entry point of a model is, and whether it compiles; nothing of it is run."""

from __future__ import annotations

import itertools
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from rayxform.errors import ModelSourceError

DEFAULT_ENTRY_POINT: Final = "inference.py"
"""AWS's default: sagemaker-inference-toolkit, ``environment.DEFAULT_MODULE_NAME``."""
DEFAULT_MODEL_FILE: Final = "model.pt"
CODE_FOLDER: Final = "code"

_MAX_LISTED: Final = 12


def find_entry_point(model_dir: Path, source_dir: Path | None, entry_point: str = DEFAULT_ENTRY_POINT) -> Path | None:
    """Find the entry point: in SourceDir, then in the archive's ``code/``, then at the archive's root.

    ``code/`` is where the SageMaker SDK packs it and where the PyTorch toolkit looks. The root is taken as well because
    archives made by hand often have it there; the SDK would repack such a one.

    Args:
        model_dir: the unpacked model.
        source_dir: the job's SourceDir, or None where it has none.
        entry_point: the job's EntryPoint, a path relative to those folders.

    Returns:
        The file; or None where the job asks for nothing but the default entry point, there is none, and the model is
        one that the default functions can run: TorchScript, as ``default_model_file`` finds it.

    Raises:
        ModelSourceError: the entry point is nowhere, or its name leads out of the folders.
    """
    if PurePosixPath(entry_point).is_absolute() or ".." in PurePosixPath(entry_point).parts or not entry_point:
        raise ModelSourceError(
            f"Model.EntryPoint is {entry_point!r}; allowed: a path below SourceDir or the archive's {CODE_FOLDER}/. "
            f"Write the file's name there, such as {DEFAULT_ENTRY_POINT!r}."
        )
    if not model_dir.is_dir():
        raise ModelSourceError(f"{model_dir} is no folder with a model in it. Check Model.ModelDataUrl.")
    folders = [model_dir / CODE_FOLDER, model_dir] if source_dir is None else [source_dir, model_dir / CODE_FOLDER, model_dir]
    places = [folder / entry_point for folder in folders]
    for place in places:
        if place.is_file():
            return place
    # Somebody who names a file, or brings a folder of code, means that code and not the defaults.
    asked_for = source_dir is not None or entry_point != DEFAULT_ENTRY_POINT
    model_file = default_model_file(model_dir)
    if not asked_for and model_file is not None and is_torchscript(model_file):
        return None
    raise ModelSourceError(
        f"there is no {entry_point}: looked for {', '.join(map(str, places))}. The model holds {_listing(model_dir)}. "
        f"Put {entry_point} into {CODE_FOLDER}/ of the archive or name its folder in Model.SourceDir"
        + ("." if asked_for else f"; without one, the model must be TorchScript in {DEFAULT_MODEL_FILE}.")
    )


def default_model_file(model_dir: Path) -> Path | None:
    """Find the file that the default model_fn loads: ``model.pt``, else the folder's only ``.pt`` or ``.pth`` file.

    Source: sagemaker-pytorch-inference-toolkit, ``default_model_fn``.
    """
    named = model_dir / DEFAULT_MODEL_FILE
    if named.is_file():
        return named
    others = [path for path in model_dir.iterdir() if path.suffix in (".pt", ".pth") and path.is_file()]
    return others[0] if len(others) == 1 else None


def is_torchscript(path: Path) -> bool:
    """Tell TorchScript from what ``torch.save`` writes, which is a zip file too but holds no code."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(("/constants.pkl", "/model.json")) for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def check_syntax(path: Path) -> None:
    """Compile a Python file without running it.

    Raises:
        ModelSourceError: the file is not valid Python, or cannot be read; with file, line and a caret under the place.
    """
    try:
        source = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise ModelSourceError(f"{path} is not valid Python: {_drawn(error)}") from error
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise ModelSourceError(f"{path} cannot be compiled: {error}. Check that it is a Python source file.") from error


def _drawn(error: SyntaxError) -> str:
    text = (error.text or "").rstrip("\n")
    place = f"line {error.lineno}: {error.msg}"
    if not text:
        return place
    shown = text.lstrip()
    column = max((error.offset or 1) - 1 - (len(text) - len(shown)), 0)
    return f"{place}\n    {shown}\n    {' ' * column}^"


def _listing(folder: Path) -> str:
    names = list(itertools.islice(_files(folder), _MAX_LISTED + 1))
    if not names:
        return "no file"
    return ", ".join(names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "")


def _files(folder: Path) -> Iterator[str]:
    """The files of a folder by their relative paths, those nearest to its root first."""
    entries = sorted(folder.iterdir())
    yield from (entry.name for entry in entries if not entry.is_dir())
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from (f"{entry.name}/{name}" for name in _files(entry))
