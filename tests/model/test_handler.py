"""inference.py as the SageMaker PyTorch toolkit runs it: its functions, their defaults, and their failures."""

import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rayxform.errors import InvocationError, ModelLoadError
from rayxform.model import Handler, InvocationContext, Response, install_requirements, sagemaker_environment

MODELS = Path(__file__).parent.parent / "models"
JSON, CSV, JSON_LINES, NPY = "application/json", "text/csv", "application/jsonlines", "application/x-npy"
MODEL_FN = "def model_fn(model_dir):\n    return None\n"
ECHO = (MODELS / "echo" / "inference.py").read_text()


@pytest.fixture(autouse=True)
def _process_as_it_was(monkeypatch):
    """A handler changes its process on purpose; each test gives it back."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(os, "environ", os.environ.copy())
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def load(
    folder: Path, source: str | None = None, environment: dict[str, str] | None = None, threads: int | None = 1
) -> Handler:
    """Load ``folder/inference.py``, written from ``source`` first where it is given."""
    path = folder / "inference.py"
    if source is not None:
        path.write_text(textwrap.dedent(source))
    return Handler.load(folder, path, environment or {}, threads)


def context(content_type: str = JSON_LINES, accept: str = JSON_LINES, **changes) -> InvocationContext:
    values = {"object": "in/a.jsonl", "first_record": 300, "n_records": 2, "attempt": 1, "model_dir": "/m"} | changes
    return InvocationContext(content_type=content_type, accept=accept, **values)


def ask(handler: Handler, body: bytes, content_type: str = JSON_LINES, accept: str = JSON_LINES) -> Response:
    return handler.transform(body, content_type, accept, context(content_type, accept))


# --- the functions


def test_an_echo_handler_needs_no_torch():
    """A handler that does not use torch does not pay for it, in a fresh process."""
    program = """
        import sys, pathlib
        from rayxform.model import Handler, InvocationContext
        handler = Handler.load(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[1]) / "inference.py", {}, 1)
        context = InvocationContext("a", 0, 1, 1, "application/jsonlines", "application/jsonlines", "m")
        print(handler.transform(b'{"id": 1}', "application/jsonlines", "application/jsonlines", context).body)
        print("torch" in sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(MODELS / "echo")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "b'{\"id\": 1}'\nFalse\n"


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        (JSON, "str"),
        (CSV, "str"),
        ("Application/JSON; charset=utf-8", "str"),
        (JSON_LINES, "bytes"),
        ("application/octet-stream", "bytes"),
        ("image/png", "bytes"),
    ],
)
def test_text_bodies_arrive_as_str_and_all_others_as_bytes(tmp_path, content_type, kind):
    handler = load(tmp_path, ECHO.replace("return body", "return type(body).__name__"))
    assert ask(handler, b"1", content_type).body == kind.encode()


def test_transform_fn_stands_for_the_three_others():
    handler = load(MODELS / "transform")
    assert ask(handler, b'"loud"', JSON) == Response(b'"LOUD"', "text/x-loud")


@pytest.mark.parametrize("other", ["input_fn", "predict_fn", "output_fn"])
def test_transform_fn_beside_another_is_refused(tmp_path, other):
    """As in sagemaker-inference-toolkit's transformer.py."""
    source = (MODELS / "transform" / "inference.py").read_text()
    with pytest.raises(ModelLoadError, match=f"defines transform_fn and {other}; .* Remove one"):
        load(tmp_path, f"{source}\n\ndef {other}(a, b):\n    return a\n")


def test_each_function_may_take_the_context():
    """It names the object, the records and the attempt, which AWS's does not, and answers as TorchServe's does."""
    handler = load(MODELS / "context")
    seen = json.loads(handler.transform(b"{}", JSON, "text/x", context(JSON, "text/x", attempt=2)).body)
    assert seen == {
        "loaded_with": ["", 0, True],
        "input_fn": ["in/a.jsonl", 300, 2, 2],
        "predict_fn": [JSON, "text/x"],
        "output_fn": 0 if torch.cuda.is_available() else None,
    }


def test_a_trailing_parameter_with_a_value_of_its_own_is_no_context(tmp_path):
    source = ECHO.replace("(body, content_type)", "(body, content_type, encoding='latin-1')").replace(
        "return body", "return body.decode(encoding)"
    )
    assert ask(load(tmp_path, source), b"\xe9").body == "é".encode()


@pytest.mark.parametrize(
    "signature", ["(data)", "(data, model, context, more)", "(*, data, model)", "(data, model, *, required)", "()"]
)
def test_a_function_that_cannot_be_called_is_found_when_the_model_is_loaded(tmp_path, signature):
    with pytest.raises(ModelLoadError, match=r"Define it as predict_fn\(data, model\), or with a trailing context"):
        load(tmp_path, ECHO.replace("predict_fn(data, model)", f"predict_fn{signature}"))


@pytest.mark.parametrize("signature", ["(*args)", "(data, *rest)", "(data, model=None, **options)"])
def test_any_other_signature_that_fits_is_called(tmp_path, signature):
    value = "args[0]" if signature == "(*args)" else "data"
    source = ECHO.replace("predict_fn(data, model)", f"predict_fn{signature}").replace("return data", f"return {value}")
    assert ask(load(tmp_path, source), b"x").body == b"x"


def test_a_function_may_be_any_callable(tmp_path):
    source = ECHO + "\nclass Model:\n    def __call__(self, data, model):\n        return data * 2\n\npredict_fn = Model()\n"
    assert ask(load(tmp_path, source), b"x").body == b"xx"
    with pytest.raises(ModelLoadError, match="predict_fn of the entry point is a int, not a function"):
        load(tmp_path, ECHO + "\npredict_fn = 1\n")


def test_the_toolkits_hooks_around_model_fn_are_called(tmp_path):
    source = """
        calls = []
        def pre_model_fn(model_dir): calls.append("pre")
        def model_fn(model_dir): calls.append("model")
        def model_warmup_fn(model_dir, model): calls.append("warmup")
        def transform_fn(model, body, content_type, accept): return " ".join(calls)
    """
    assert ask(load(tmp_path, source), b"").body == b"pre model warmup"


# --- the process


def test_the_environment_is_there_when_inference_py_is_imported(tmp_path):
    source = MODEL_FN + "import os\nseen = dict(os.environ)\ndef transform_fn(m, b, c, a): return seen[b.decode()]\n"
    environment = {"MODEL_NAME": "résnet", "SAGEMAKER_BATCH": "true"}
    handler = load(tmp_path, source, environment, threads=3)
    expected = environment | {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
    assert {name: ask(handler, name.encode()).body.decode() for name in expected} == expected


def test_threads_are_set_unless_the_job_sets_them(tmp_path):
    torch.set_num_threads(2)
    load(tmp_path, ECHO, threads=1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    load(tmp_path, ECHO, {"OMP_NUM_THREADS": "4"}, threads=1)
    assert os.environ["OMP_NUM_THREADS"] == "4"
    assert torch.get_num_threads() == 2


def test_sagemakers_variables_are_those_of_a_batch_job():
    """The three of the job are there only where its caller set them."""
    assert sagemaker_environment(entry_point=None) == {"SAGEMAKER_BATCH": "true"}
    assert sagemaker_environment(
        entry_point=Path("/m/code/serve.py"),
        max_payload_in_mb=1,
        batch_strategy="MultiRecord",
        max_concurrent_transforms=2,
        environment={"A": "1", "SAGEMAKER_PROGRAM": "own.py"},
    ) == {
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_PROGRAM": "own.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": "/m/code",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "1",
        "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2",
        "A": "1",
    }


def test_modules_beside_the_entry_point_are_its_own_and_as_they_are_now(tmp_path):
    """A second model with a module of the same name, or an edited one, does not get what the first one imported."""
    source = MODEL_FN + "import helpers\ndef transform_fn(m, b, c, a): return helpers.answer()\n"
    for folder, answer in [("a", "first"), ("b", "second"), ("b", "edited since")]:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "helpers.py").write_text(f"def answer():\n    return {answer!r}\n")
        assert ask(load(tmp_path / folder, source), b"").body == answer.encode()


def test_classes_pickled_by_the_entry_points_module_name_resolve(tmp_path):
    """By the file's own name, as in the toolkit, and as ``inference.X``, as in the process that trained the model."""
    source = """
        import pickle
        class Model:
            pass
        def model_fn(model_dir):
            assert pickle.loads(b"cinference\\nModel\\n.") is Model
            return pickle.loads(pickle.dumps(Model()))
        def transform_fn(model, body, content_type, accept):
            return type(model).__module__
    """
    (tmp_path / "serve.py").write_text(textwrap.dedent(source))
    handler = Handler.load(tmp_path, tmp_path / "serve.py", {})
    assert ask(handler, b"").body == b"serve"


def test_an_entry_point_with_the_name_of_a_module_of_pythons_does_not_replace_it(tmp_path):
    (tmp_path / "json.py").write_text(
        "def model_fn(d): pass\ndef transform_fn(model, body, content_type, accept): return body\n"
    )
    handler = Handler.load(tmp_path, tmp_path / "json.py", {})
    assert ask(handler, b"asked").body == b"asked"
    assert sys.modules["json"] is json


def test_an_entry_point_may_import_the_inference_py_beside_it(tmp_path):
    (tmp_path / "inference.py").write_text("def model_fn(d): return 'of inference.py'\n")
    source = "from inference import model_fn\ndef transform_fn(model, body, content_type, accept): return model\n"
    (tmp_path / "variant.py").write_text(source)
    handler = Handler.load(tmp_path, tmp_path / "variant.py", {})
    assert ask(handler, b"").body == b"of inference.py"


# --- what comes back


@pytest.mark.parametrize(
    ("returned", "body", "content_type"),
    [
        ("'é'", "é".encode(), JSON_LINES),
        ("b'x'", b"x", JSON_LINES),
        ("bytearray(b'x')", b"x", JSON_LINES),
        ("memoryview(b'xyz')[1:]", b"yz", JSON_LINES),
        ("('x', 'text/plain')", b"x", "text/plain"),
        ("(b'x', 'text/plain')", b"x", "text/plain"),
        ("types.SimpleNamespace(response='x', mimetype='text/plain')", b"x", "text/plain"),
        ("types.SimpleNamespace(response=[b'x', 'y'], mimetype='text/plain')", b"xy", "text/plain"),
    ],
)
def test_output_fn_may_return(tmp_path, returned, body, content_type):
    handler = load(tmp_path, "import types\n" + ECHO.replace("return prediction", f"return {returned}"))
    assert ask(handler, b"") == Response(body, content_type)


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        ("None", "type NoneType"),
        ("{'a': 1}", "type dict"),
        ("['a']", "type list"),
        ("3", "type int"),
        ("('a', 'b', 'c')", r"tuple of \(str, str, str\)"),
        ("('a', 200)", r"tuple of \(str, int\)"),
        ("({'a': 1}, 'application/json')", "type dict"),
    ],
)
def test_output_fn_may_not_return(tmp_path, returned, found):
    handler = load(tmp_path, ECHO.replace("return prediction", f"return {returned}"))
    with pytest.raises(InvocationError, match=rf"output_fn returned an? .*{found}.* Return str, bytes"):
        ask(handler, b"")


def test_a_str_that_is_no_unicode_is_an_error(tmp_path):
    handler = load(tmp_path, ECHO.replace("return prediction", "return 'a\\ud800'"))
    with pytest.raises(InvocationError, match="lone surrogate at character 1"):
        ask(handler, b"")


def test_a_text_body_that_is_no_utf8_names_the_byte():
    with pytest.raises(InvocationError, match=r"not UTF-8 at byte 2 \(0xff\), as text/csv has to be"):
        ask(load(MODELS / "echo"), b"a,\xff", CSV)


# --- what goes wrong


@pytest.mark.parametrize("function", ["input_fn", "predict_fn", "output_fn"])
def test_an_error_names_the_function_and_starts_at_the_users_frame(tmp_path, function):
    body = f"    return helper()\n\n\ndef helper():\n    raise ValueError('label {function} is unknown')\n"
    before, _, after = ECHO.partition(f"def {function}")
    handler = load(tmp_path, before + f"def {function}" + after.split("\n", 1)[0] + "\n" + body + after.split("\n", 2)[2])
    with pytest.raises(InvocationError) as caught:
        ask(handler, b"")
    assert caught.value.message == f"{function} raised ValueError: label {function} is unknown"
    first, place, *_ = caught.value.user_traceback.splitlines()
    assert first == "Traceback (most recent call last):"
    assert place.endswith(f"in {function}")
    assert str(tmp_path / "inference.py") in place
    assert "rayxform" not in caught.value.user_traceback
    assert pickle.loads(pickle.dumps(caught.value)).user_traceback == caught.value.user_traceback


@pytest.mark.parametrize(
    ("source", "message", "first_frame"),
    [
        (
            "import no_such_package\n" + MODEL_FN,
            r"ModuleNotFoundError: .*no_such_package.* in requirements\.txt beside",
            "<module>",
        ),
        ("1 / 0\n" + MODEL_FN, "inference.py raised ZeroDivisionError", "<module>"),
        (
            "import sys\nsys.exit('bye')\n",
            r"inference.py raised SystemExit\(bye\).* Raise an exception instead",
            "<module>",
        ),
        ("import broken\n" + MODEL_FN, "inference.py raised SyntaxError", "<module>"),
        ("def model_fn(model_dir):\n    raise OSError(model_dir)\n", "model_fn raised OSError", "model_fn"),
        (
            "def model_fn(model_dir):\n    open(model_dir + '/no.pth')\n",
            "model_fn raised FileNotFoundError",
            "model_fn",
        ),
        ("def model_fn(model_dir):\n    exit(3)\n", r"model_fn raised SystemExit\(3\)", "model_fn"),
    ],
)
def test_a_model_that_does_not_load_says_so_with_the_users_traceback(tmp_path, source, message, first_frame):
    (tmp_path / "broken.py").write_text("def f(:\n")
    with pytest.raises(ModelLoadError, match=message) as caught:
        load(tmp_path, source)
    assert caught.value.user_traceback.splitlines()[1].endswith(f"in {first_frame}")


def test_a_syntax_error_is_shown_with_its_caret(tmp_path):
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path, "def model_fn(model_dir:\n    pass\n")
    assert 'inference.py", line 1' in caught.value.user_traceback
    assert "^" in caught.value.user_traceback


def test_without_model_fn_the_message_says_what_was_looked_for(tmp_path):
    with pytest.raises(ModelLoadError, match=r"there is no model_fn.* looked for model\.pt, or exactly one \.pt or \.pth"):
        load(tmp_path, ECHO.replace("def model_fn", "def load_model"))


def test_an_exit_in_predict_fn_is_an_error_of_the_request(tmp_path):
    handler = load(tmp_path, ECHO.replace("return data", "raise SystemExit(4)"))
    with pytest.raises(InvocationError, match=r"predict_fn raised SystemExit\(4\)"):
        ask(handler, b"")


def test_ctrl_c_is_not_swallowed(tmp_path):
    handler = load(tmp_path, ECHO.replace("return data", "raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        ask(handler, b"")


def test_an_error_that_cannot_be_printed_is_still_reported(tmp_path):
    source = ECHO + "\nclass Mute(Exception):\n    def __str__(self):\n        raise RuntimeError\n"
    handler = load(tmp_path, source.replace("return data", "raise Mute"))
    with pytest.raises(InvocationError, match="predict_fn raised Mute"):
        ask(handler, b"")


# --- torch

NET = """
    import torch
    from torch import nn
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
            self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4 * 36, 5)
        def forward(self, x):
            x = self.norm(self.b(self.a(x).relu()))
            return self.head(FLATTEN)
    net = Net()
    def model_fn(model_dir): return net.eval()
    def input_fn(body, content_type): return torch.arange(2 * 3 * 36.0).reshape(2, 3, 6, 6).sin()
    def predict_fn(data, model): return model(data.mul_(2))
    def output_fn(prediction, accept):
        import json
        return json.dumps(prediction.tolist())
"""


def test_convolutions_run_channels_last_with_the_same_results(tmp_path):
    handler = load(tmp_path, NET.replace("FLATTEN", "x.flatten(1)"))
    found = np.array(json.loads(ask(handler, b"").body))
    net = sys.modules["inference"].net
    assert net.a.weight.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        net.to(memory_format=torch.contiguous_format)
        expected = net(torch.arange(2 * 3 * 36.0).reshape(2, 3, 6, 6).sin() * 2)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert not net.training


def test_a_model_that_views_its_features_gets_the_layout_it_needs(tmp_path):
    """``x.view`` after a convolution raises in channels_last; the request is done again from its body, without.

    predict_fn changes its input in place, so that going on from there would give other numbers.
    """
    flattened = load(tmp_path, NET.replace("FLATTEN", "x.flatten(1)"))
    expected = np.array(json.loads(ask(flattened, b"").body))
    viewed = load(tmp_path, NET.replace("FLATTEN", "x.view(x.size(0), -1)"))
    for _ in range(2):
        np.testing.assert_allclose(np.array(json.loads(ask(viewed, b"").body)), expected, rtol=1e-4, atol=1e-5)
    assert not sys.modules["inference"].net.a.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_model_in_training_mode_is_warned_about_and_left_so(tmp_path):
    handler = load(tmp_path, NET.replace("FLATTEN", "x.flatten(1)").replace("net.eval()", "net"))
    (warning,) = handler.warnings
    assert "the other records of the mini-batch" in warning
    assert "Call model.eval() in model_fn" in warning
    assert sys.modules["inference"].net.training


def test_predict_fn_runs_without_gradients_and_may_ask_for_them(tmp_path):
    source = """
        import torch
        weight = torch.ones(1, requires_grad=True)
        def model_fn(model_dir): return None
        def input_fn(body, content_type): return body
        def predict_fn(data, model):
            if data == b"ask":
                with torch.enable_grad():
                    return torch.autograd.grad(weight * 3, weight)[0].item()
            if data == b"take":
                return torch.autograd.grad(weight * 3, weight)
            return (weight * 3).requires_grad
        def output_fn(prediction, accept): return str(prediction)
    """
    handler = load(tmp_path, source)
    assert ask(handler, b"").body == b"False"
    assert ask(handler, b"ask").body == b"3.0"
    with pytest.raises(InvocationError, match=r"does not require grad.*torch\.enable_grad\(\)"):
        ask(handler, b"take")


# --- the defaults


class Doubler(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


@pytest.fixture(scope="module")
def torchscript(tmp_path_factory):
    """A model that is TorchScript and nothing else; it must be in no folder with another test's."""
    folder = tmp_path_factory.mktemp("torchscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.15 would rather have torch.export
        torch.jit.save(torch.jit.script(Doubler()), folder / "model.pt")
    return folder


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "answer"),
    [
        (b"[[1, 2], [3, 4]]", JSON, JSON, b"[[2.0, 4.0], [6.0, 8.0]]"),
        (b"[1]", JSON, "*/*", b"[2.0]"),
        (b"1,2\n3,4\n", CSV, CSV, b"2.0,4.0\n6.0,8.0\n"),
        (b"1,2", CSV, CSV, b"2.0,4.0\n"),
        (b"1\n2\n", CSV, CSV, b"2.0\n4.0\n"),
        (b"1,\n", CSV, CSV, b"2.0,nan\n"),
        (b"[1, 2]\n[3, 4]\n", JSON_LINES, JSON_LINES, b"[2.0, 4.0]\n[6.0, 8.0]"),
        (b"1\n2", "application/x-ndjson", "text/html, application/jsonlines;q=0.5", b"2.0\n4.0"),
    ],
)
def test_torchscript_alone_runs_by_the_defaults(torchscript, body, content_type, accept, answer):
    handler = Handler.load(torchscript, None, {}, 1)
    assert ask(handler, body, content_type, accept).body == answer


def test_npy_goes_in_and_out(torchscript):
    stream = io.BytesIO()
    np.save(stream, np.array([[1.5, 2.5]], dtype=np.float32))
    response = ask(Handler.load(torchscript, None, {}, 1), stream.getvalue(), NPY, NPY)
    assert response.content_type == NPY
    assert np.load(io.BytesIO(response.body)).tolist() == [[3.0, 5.0]]


def test_npy_with_pickled_objects_is_refused(torchscript):
    """Input data must not be able to run code."""
    stream = io.BytesIO()
    np.save(stream, np.array([SimpleNamespace()], dtype=object), allow_pickle=True)
    with pytest.raises(InvocationError, match="allow_pickle"):
        ask(Handler.load(torchscript, None, {}, 1), stream.getvalue(), NPY)


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "message"),
    [
        (
            b"x",
            "image/png",
            JSON,
            r"default input_fn does not support content type 'image/png'; it supports application/json",
        ),
        (
            b"1",
            JSON,
            "image/png",
            r"default output_fn does not support Accept 'image/png'; it supports application/json",
        ),
        (b"[1]\n[2]", JSON, JSON, r"ContentType is application/jsonlines"),
        (b'{"a": 1}', JSON, JSON, r"Write an input_fn"),
        (b'{"a": 1}\n{"a": 2}', JSON_LINES, JSON_LINES, r"default predict_fn takes numbers"),
        (b"1\n{", JSON_LINES, JSON_LINES, r"line 2 of the body"),
        (b"1,red\n", CSV, CSV, r"cannot read the body as text/csv: .*red"),
    ],
)
def test_what_the_defaults_cannot_do_is_said_clearly(torchscript, body, content_type, accept, message):
    with pytest.raises(InvocationError, match=message):
        ask(Handler.load(torchscript, None, {}, 1), body, content_type, accept)


def test_the_defaults_write_what_models_return(tmp_path):
    """One line a prediction: of an array, a list of dicts with arrays in them, a single dict."""
    source = """
        import json, numpy as np, torch
        values = {b"array": np.arange(2), b"tensor": torch.ones(2, 1, dtype=torch.bfloat16, requires_grad=True),
                  b"dicts": [{"p": np.float32(0.5)}, {"p": torch.tensor([1])}], b"dict": {"p": "é"}, b"text": "one"}
        def model_fn(model_dir): return None
        def input_fn(body, content_type): return body
        def predict_fn(data, model): return values[data]
    """
    handler = load(tmp_path, source)
    answers = {
        "array": b"0\n1",
        "tensor": b"[1.0]\n[1.0]",
        "dicts": b'{"p": 0.5}\n{"p": [1]}',
        "dict": b'{"p": "\\u00e9"}',
        "text": b'"one"',
    }
    assert {name: ask(handler, name.encode()).body for name in answers} == answers


def test_the_default_predict_fn_says_that_it_runs_torch(tmp_path):
    with pytest.raises(InvocationError, match="default predict_fn runs torch modules, and model_fn returned NoneType"):
        ask(load(tmp_path, MODEL_FN), b"[1]", JSON, JSON)


def test_a_model_pt_that_is_no_torchscript_is_explained(tmp_path):
    torch.save(Doubler().state_dict(), tmp_path / "model.pt")
    with pytest.raises(ModelLoadError, match=r"it takes TorchScript only.*or write model_fn"):
        load(tmp_path, "")


# --- requirements.txt


def wheel(folder: Path, name: str, version: str, source: str, requires: str = "") -> None:
    """A wheel made by hand: three small files in a zip."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", source)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def test_requirements_bring_what_is_missing_and_nothing_else(tmp_path):
    """The package and its own dependency come; the dependency that the environment has (packaging) does not."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(wheels, "rxa", "1.2", "import rxb\nname = rxb.name", "Requires-Dist: rxb>=2\nRequires-Dist: packaging>=20\n")
    wheel(wheels, "rxb", "2.0", "name = 'b'")
    wheel(wheels, "rxb", "1.0", "name = 'too old'")
    (tmp_path / "more.txt").write_text("rxa \\\n  >=1  # the one that counts\n")
    requirements = tmp_path / "requirements.txt"
    lines = [
        "# a comment",
        f"--no-index --find-links {wheels}",
        "numpy",
        "",
        "-r more.txt",
        "none ; python_version < '3'",
    ]
    requirements.write_text("\n".join(lines))
    folder = install_requirements(requirements, tmp_path / "packages")
    assert sorted(path.name for path in folder.glob("*.py")) == ["rxa.py", "rxb.py"]
    assert not (folder / "packaging").exists()
    assert not (folder / "numpy").exists()
    program = "import sys; sys.path.insert(0, sys.argv[1]); import rxa; print(rxa.name)"
    assert subprocess.check_output([sys.executable, "-c", program, str(folder)], text=True) == "b\n"
    inode = (folder / "rxa.py").stat().st_ino
    assert install_requirements(requirements, tmp_path / "packages") == folder
    assert (folder / "rxa.py").stat().st_ino == inode


def test_requirements_that_are_there_need_no_installation(tmp_path):
    (tmp_path / "requirements.txt").write_text("--no-index\nnumpy>=1\ntorch\npytest # for fun\n")
    assert install_requirements(tmp_path / "requirements.txt", tmp_path / "packages") is None
    assert not (tmp_path / "packages").exists()


def test_requirements_that_cannot_be_installed_show_pips_last_lines(tmp_path):
    (tmp_path / "requirements.txt").write_text("--no-index\nno-such-package-rx==1\n")
    with pytest.raises(ModelLoadError) as caught:
        install_requirements(tmp_path / "requirements.txt", tmp_path / "packages")
    assert "requirements.txt cannot be installed (pip exit code 1)" in str(caught.value)
    assert "No matching distribution found for no-such-package-rx==1" in str(caught.value)
    assert list((tmp_path / "packages").iterdir()) == []
