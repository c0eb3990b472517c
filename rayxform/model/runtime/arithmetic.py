"""What a job says of its model's arithmetic, applied to what ``model_fn`` returned: Precision, Compile, ModelMicroBatch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from rayxform.errors import ModelLoadError
from rayxform.model.runtime.compiling import Compiled
from rayxform.model.runtime.folding import fold_batch_norms, is_foldable_norm
from rayxform.model.runtime.graph import trace
from rayxform.model.runtime.kept import model_key
from rayxform.model.runtime.layout import Layout, lay_out
from rayxform.model.runtime.loaded import loaded_torch, modules_of, set_threads
from rayxform.model.runtime.micro_batch import MicroBatches
from rayxform.model.runtime.per_record import computes_each_record_alone
from rayxform.model.runtime.precision import lower_precision, slowness
from rayxform.model.runtime.small_pieces import SmallPieces
from rayxform.model.runtime.stand_in import is_plain

Precision = Literal["float32", "bfloat16", "float16"]

_AS_IT_IS: Final = "float32"


@dataclass(frozen=True)
class Arithmetic:
    """How a model is to compute.

    Attributes:
        precision: Rayxform.Precision.
        compile: Rayxform.Compile.
        micro_batch: Rayxform.ModelMicroBatch, in records; 0 to find it out, None to leave mini-batches whole.
        model: the digest of the model's files, which names what is found out about it; "" where nothing is.
        folder: where that is kept on this machine.
    """

    precision: Precision = "float32"
    compile: bool = False
    micro_batch: int | None = None
    model: str = ""
    folder: str = ""

    @property
    def members(self) -> str:
        """The members of the job that ask for something, in words; "" if none does."""
        asked = {
            "Precision": self.precision != _AS_IT_IS,
            "Compile": self.compile,
            "ModelMicroBatch": self.micro_batch is not None,
        }
        return ", ".join(f"Rayxform.{name}" for name, is_asked in asked.items() if is_asked)

    @property
    def is_kept(self) -> bool:
        """Whether something is found out that the next worker uses too."""
        return self.compile or self.micro_batch == 0


@dataclass
class Runtime:
    """A model as it runs.

    Attributes:
        layout: what can be put back.
        around: what the user's functions are called in.
        micro_batches: what cuts mini-batches, a module each.
        warnings: what a user should know; a sentence each. Grows as shapes come in.
    """

    layout: Layout = field(default_factory=Layout)
    around: AbstractContextManager[object] = field(default_factory=contextlib.nullcontext)
    micro_batches: list[MicroBatches] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def give_up_layout(self) -> None:
        """Put the model's layout back, once."""
        self.layout.restore()
        self.layout = Layout()


def prepare(model: object, threads: int | None, arithmetic: Arithmetic) -> Runtime:
    """Set torch's threads, and have a model compute as the job says, in place.

    By itself, that is without any member of the job, this folds batch norms, changes the layout, and cuts mini-batches where a
    model computes each image by itself: results are the same to rounding.

    Args:
        model: what model_fn returned; see ``modules_of``. Anything else is left alone where the job asks for nothing.
        threads: how many threads torch computes with; None leaves that to torch.
        arithmetic: what the job asks for.

    Raises:
        ModelLoadError: the job asks for something, and there is no torch module; or it cannot be compiled here.
    """
    modules = list(modules_of(model))
    if arithmetic.members and not modules:
        raise ModelLoadError(
            f"the job sets {arithmetic.members}, which acts on torch modules, but model_fn returned a {type(model).__name__} "
            "without any; return the module, alone, in a tuple, list or dict, or as an attribute, or leave that out"
        )
    if loaded_torch() is None:
        return Runtime()
    set_threads(threads)
    runtime = Runtime(_speed_up(modules, may_cut=not arithmetic.compile and arithmetic.micro_batch is None))
    if arithmetic.precision != _AS_IT_IS:
        runtime.around = lower_precision(model, arithmetic.precision)
        if (slow := slowness(model, arithmetic.precision)) is not None:
            runtime.warnings.append(slow)
    if not arithmetic.is_kept and arithmetic.micro_batch is None:
        return runtime
    key = model_key(model, {"model": arithmetic.model, "precision": arithmetic.precision}) if arithmetic.is_kept else ""
    for number, module in enumerate(modules):
        name = f"{key}-{number}"
        if arithmetic.compile:
            module.forward = Compiled(module, Path(arithmetic.folder), name, runtime.warnings.append)
        if arithmetic.micro_batch is not None:
            size = arithmetic.micro_batch or None
            kind = "compiled" if arithmetic.compile else "eager"
            kept = Path(arithmetic.folder) / f"{name}-{kind}-micro-batch.json" if size is None else None
            module.forward = MicroBatches(module.forward, size, kept)
            runtime.micro_batches.append(module.forward)
    return runtime


def _speed_up(modules: Sequence[Any], *, may_cut: bool) -> Layout:
    """What is done by itself; ``may_cut`` says whether mini-batches may be cut, which a job can ask for in its own way."""
    traces = [(one, traced) for one in modules if _is_worth_tracing(one, may_cut=may_cut) and (traced := trace(one))]
    for module, traced in traces:
        fold_batch_norms(module, traced)
    layout = lay_out(modules)
    for module, traced in traces:
        if may_cut and computes_each_record_alone(module, traced):
            SmallPieces(module)
    return layout


def _is_worth_tracing(module: Any, *, may_cut: bool) -> bool:
    """Tell whether a module has what its graph is looked at for: batch norms to fold, or images on the CPU to cut."""
    torch = loaded_torch()
    if isinstance(module, torch.jit.ScriptModule):
        return False
    has_norms = any(is_foldable_norm(part) for part in module.modules())
    return has_norms or (may_cut and any(isinstance(part, torch.nn.Conv2d) and is_plain(part) for part in module.modules()))
