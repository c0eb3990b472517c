"""The functions that run where inference.py leaves one out, after the SageMaker PyTorch toolkit's defaults.

Source: sagemaker-pytorch-inference-toolkit, ``default_pytorch_inference_handler.py``, and sagemaker-inference-toolkit,
``decoder.py`` and ``encoder.py``. Where they differ here, on purpose:

- JSON Lines is read and written as well: a list with one decoded object a line in, one line a prediction out.
- CSV always gives a row a record. The toolkit makes one row a vector, so that a mini-batch of one record, such as a
  file's last one may be, would come back as several predictions.
- NPY is read without pickle, since input data must not be able to run code.
- A worker without torch gets numpy arrays instead of tensors, so that another library's predict_fn can do without it.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final, cast

from rayxform.core.examples import EXAMPLE_TYPES, FeatureValues, read_examples
from rayxform.core.media import JSON_LINES_TYPES, media_type
from rayxform.errors import InvocationError, ModelLoadError, RecordError
from rayxform.model.entry_point import DEFAULT_MODEL_FILE, default_model_file

NPY_TYPE: Final = "application/x-npy"
# The last two: nested some hundred levels deep, and an integer of hundreds of digits.
_UNREADABLE: Final = (ValueError, TypeError, RecursionError, OverflowError)
_SUPPORTED: Final = "application/json, application/jsonlines, text/csv, application/x-npy"


def default_model_fn(model_dir: str) -> object:
    """Load TorchScript from ``model.pt``, or the folder's only ``.pt`` or ``.pth`` file, onto the GPU if there is one.

    Raises:
        ModelLoadError: there is no such file, it is not TorchScript, or torch is not installed.
    """
    path = default_model_file(Path(model_dir))
    if path is None:
        raise ModelLoadError(
            f"there is no model_fn, and the default one found no model: looked for {DEFAULT_MODEL_FILE}, or exactly "
            f"one .pt or .pth file, in {model_dir}. Write model_fn(model_dir), or save the model as TorchScript there."
        )
    torch = _torch()
    if torch is None:
        raise ModelLoadError(
            "the default model_fn needs torch, which is not installed. Install it, or write model_fn(model_dir)."
        )
    try:
        with warnings.catch_warnings():
            # Newer torch recommends torch.export here, which the toolkit's default does not take.
            warnings.simplefilter("ignore", FutureWarning)
            return torch.jit.load(str(path), map_location=_device(torch))
    except RuntimeError as error:
        raise ModelLoadError(
            f"the default model_fn cannot load {path}: it takes TorchScript only, and torch says: {error}. "
            "Save the model with torch.jit.save, or write model_fn(model_dir)."
        ) from error


def default_input_fn(body: str | bytes, content_type: str) -> object:
    """Decode a request's body.

    Returns:
        A float32 tensor for JSON and CSV, a tensor of the array's own type for NPY, on the GPU if there is one; a list
        of decoded objects for JSON Lines; a list of dicts, feature's name → list of values, for tf.train.Example.

    Raises:
        InvocationError: the content type is not supported, or the body is not of that type.
    """
    kind = media_type(content_type)
    if kind in JSON_LINES_TYPES:
        return _decode_lines(body, content_type)
    if kind in EXAMPLE_TYPES:
        return _decode_examples(body, content_type)
    decode = {"application/json": _decode_json, "text/csv": _decode_csv, NPY_TYPE: _decode_npy}.get(kind)
    if decode is None:
        raise InvocationError(_unsupported("input_fn", "content type", content_type))
    try:
        return _to_tensor(decode(body))
    except _UNREADABLE as error:
        raise InvocationError(
            f"the default input_fn cannot read the body as {content_type}: {error}{_hint(kind, body)}"
        ) from error


def default_predict_fn(data: object, model: Any) -> object:
    """Call the model on the data, without gradients, in evaluation mode, both on the GPU if there is one.

    Raises:
        InvocationError: the data are not numbers, the model is no torch module, or torch is not installed.
    """
    torch = _torch()
    if torch is None:
        raise InvocationError(
            "the default predict_fn needs torch, which is not installed. Install it, or write predict_fn(data, model)."
        )
    if not isinstance(model, torch.nn.Module):
        raise InvocationError(
            f"the default predict_fn runs torch modules, and model_fn returned {type(model).__name__}. "
            "Write a predict_fn(data, model)."
        )
    device = _device(torch)
    # What input_fn made may have a .to() of its own, as a tensor and a tokenizer's encoding have.
    moved = data.to(device) if hasattr(data, "to") else torch.as_tensor(_numbers(data)).to(device)
    with torch.no_grad():
        model = model.to(device)
        model.eval()
        return model(moved)


def default_output_fn(prediction: object, accept: str) -> tuple[str | bytes, str]:
    """Encode a prediction as the first type of ``accept`` that is supported.

    Returns:
        The body and its content type.

    Raises:
        InvocationError: no type of ``accept`` is supported, or the prediction cannot be written as it.
    """
    prediction = _plain(prediction)
    for entry in accept.split(","):
        kind = media_type(entry)
        encode = _encoder("application/json" if kind in ("*/*", "application/*") else kind)
        if encode is None:
            continue
        try:
            return encode(prediction), "application/json" if kind.endswith("*") else kind
        except (ValueError, TypeError) as error:
            raise InvocationError(
                f"the default output_fn cannot write a prediction of type {type(prediction).__name__} as {kind}: "
                f"{error}. Write an output_fn(prediction, accept)."
            ) from error
    raise InvocationError(_unsupported("output_fn", "Accept", accept))


def _decode_examples(body: str | bytes, content_type: str) -> list[dict[str, FeatureValues]]:
    try:
        return read_examples(body.encode() if isinstance(body, str) else body)
    except RecordError as error:
        raise InvocationError(f"the default input_fn cannot read the body as {content_type}: {error}") from error


def _encoder(kind: str) -> Callable[[object], str | bytes] | None:
    if kind in JSON_LINES_TYPES:
        return _encode_lines
    encoders: dict[str, Callable[[object], str | bytes]] = {
        "application/json": _encode_json,
        "text/csv": _encode_csv,
        NPY_TYPE: _encode_npy,
    }
    return encoders.get(kind)


def _decode_lines(body: str | bytes, content_type: str) -> list[Any]:
    lines = body.encode() if isinstance(body, str) else body
    decoded: list[Any] = []
    for number, line in enumerate(lines.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            decoded.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise InvocationError(
                f"the default input_fn cannot read line {number} of the body as {content_type}: {error}. "
                "Correct the line, or write an input_fn(body, content_type)."
            ) from error
    return decoded


def _decode_json(body: str | bytes) -> Any:
    import numpy as np  # noqa: PLC0415 - as torch: only what runs is loaded

    return np.array(json.loads(body), dtype=np.float32)


def _decode_csv(body: str | bytes) -> Any:
    import numpy as np  # noqa: PLC0415

    text = body if isinstance(body, str) else body.decode()
    # Unlike genfromtxt this raises for a field that is no number, instead of passing nan on; an empty field is nan.
    return np.loadtxt(
        io.StringIO(text),
        dtype=np.float32,
        comments=None,
        delimiter=",",
        converters=lambda field: float(field.strip() or "nan"),
        ndmin=2,
        encoding=None,
    )


def _decode_npy(body: str | bytes) -> Any:
    import numpy as np  # noqa: PLC0415

    stream = io.BytesIO(body.encode() if isinstance(body, str) else body)
    try:
        # Not numpy.load, which would take a zip archive as well.
        return np.lib.format.read_array(stream, allow_pickle=False)
    except MemoryError as error:  # the body was here already, so it is not the array that is too large
        raise ValueError("its header tells of an array that is larger than the memory") from error
    except (SyntaxError, TokenError) as error:  # what numpy's way of reading the header lets through
        raise ValueError(f"its header is damaged: {error}") from error


def _hint(kind: str, body: str | bytes) -> str:
    text = body if isinstance(body, str) else ""
    if kind == "application/json" and "\n" in text.strip():
        return ". For one JSON value a line, ContentType is application/jsonlines"
    return ". Write an input_fn(body, content_type) for anything but numbers"


def _to_tensor(array: Any) -> object:
    torch = _torch()
    return array if torch is None else torch.from_numpy(array).to(_device(torch))


def _numbers(data: object) -> Any:
    import numpy as np  # noqa: PLC0415

    if isinstance(data, np.ndarray):
        return data
    try:
        return np.array(data, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise InvocationError(
            f"the default predict_fn takes numbers, one array of the same length for each record: {error}. "
            "Write an input_fn that makes a tensor of the records, or a predict_fn that takes them as they are."
        ) from error


def _plain(prediction: Any) -> object:
    """A tensor as a list, which is how the toolkit's default output_fn begins."""
    is_tensor = hasattr(prediction, "detach") and hasattr(prediction, "tolist")
    return prediction.detach().cpu().tolist() if is_tensor else prediction


def _default(value: object) -> object:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"an object of type {type(value).__name__} is no JSON")


def _encode_json(prediction: object) -> str:
    return json.dumps(prediction, default=_default)


def _encode_lines(prediction: object) -> str:
    if hasattr(prediction, "tolist"):
        prediction = prediction.tolist()
    several = isinstance(prediction, Iterable) and not isinstance(prediction, (str, bytes, dict))
    lines: Iterable[object] = cast("Iterable[object]", prediction) if several else [prediction]
    return "\n".join(json.dumps(line, default=_default) for line in lines)


def _encode_csv(prediction: object) -> str:
    import numpy as np  # noqa: PLC0415

    stream = io.StringIO()
    np.savetxt(stream, np.atleast_1d(np.asarray(prediction)), delimiter=",", fmt="%s")
    return stream.getvalue()


def _encode_npy(prediction: object) -> bytes:
    import numpy as np  # noqa: PLC0415

    stream = io.BytesIO()
    np.save(stream, np.asarray(prediction), allow_pickle=False)
    return stream.getvalue()


def _unsupported(function: str, what: str, value: str) -> str:
    return (
        f"the default {function} does not support {what} {value!r}; it supports {_SUPPORTED}. "
        f"Set one of these, or write an {function}."
    )


def _torch() -> Any:
    try:
        import torch  # noqa: PLC0415 - seconds and hundreds of megabytes, so only for those who use it
    except ImportError:
        return None
    return torch


def _device(torch: Any) -> Any:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
