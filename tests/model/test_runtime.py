"""How a user's unmodified model computes: layouts, precision, compiled code, micro-batches. With real torch modules."""

import copy
import json
import os
import pickle
import re
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from rayxform.errors import ModelLoadError
from rayxform.model import Arithmetic, Handler, InvocationContext
from rayxform.model.runtime import linear as linear_module
from rayxform.model.runtime import prepare
from rayxform.model.runtime.kept import model_key
from rayxform.model.runtime.micro_batch import MicroBatches, best_size, candidates

JSON = "application/json"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
CLOSE_IN = {torch.float32: CLOSE, torch.bfloat16: {"rtol": 0.02, "atol": 0.02}}
SAME = {"rtol": 0, "atol": 0}


@pytest.fixture(autouse=True)
def process_as_it_was():
    """Handlers set variables, and torch's compiler the depth of recursion, for the whole process."""
    variables, limit = dict(os.environ), sys.getrecursionlimit()
    yield
    os.environ.clear()
    os.environ.update(variables)
    sys.setrecursionlimit(limit)


class Net(nn.Module):
    """Maps of 4x4, 2x2 and 1x1 pixels: what is convolved in it may become products of matrices."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.middle = nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.last = nn.Conv2d(8, 16, 3, 2, 1)
        self.deep = nn.Conv2d(16, 16, 3, 1, 1)
        self.fc = nn.Linear(16, 5)

    def forward(self, images):
        features = self.norm(self.stem(images)).relu()
        features = self.middle(features).relu() + features
        return self.fc(self.deep(self.last(features).relu()).mean((2, 3)))


class Named(nn.Module):
    """Takes and gives what models of text do: arguments by name, and a dict."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids, mask=None, *, scale=1.0):
        hidden = self.table(ids) * (1.0 if mask is None else mask[..., None])
        return {"logits": self.head(hidden.mean(1)) * scale, "hidden": hidden}


def images(count, side=4):
    torch.manual_seed(count)
    return torch.randn(count, 3, side, side)


def expected(model, *args, **kwargs):
    with torch.no_grad():
        return copy.deepcopy(model)(*args, **kwargs)


# --- small maps


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_maps_of_few_pixels_give_the_same_results(side, count):
    """Whatever the size of the map, what a convolution makes of it stays the same to rounding."""
    model = Net().eval()
    right = expected(model, images(count, side))
    prepare(model, None, Arithmetic())
    with torch.no_grad():
        torch.testing.assert_close(model(images(count, side)), right, **CLOSE)
        torch.testing.assert_close(model(images(count, side)), right, **CLOSE)  # from what was kept


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 2, "stride": 2},
        {"kernel_size": (2, 3), "padding": (1, 0), "bias": False},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": 2, "dilation": 2},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
        {"kernel_size": 3, "padding": 1, "groups": 2},
        {"kernel_size": 5, "padding": 2, "dtype": torch.float64},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(2, 2), (1, 4), (4, 1), (1, 3)], ids=str)
def test_every_kind_of_convolution(options, size):
    model = nn.Sequential(nn.Conv2d(4, 6, **options)).eval()
    x = torch.randn(3, 4, *size, dtype=options.get("dtype", torch.float32))
    try:
        right = expected(model, x)
    except RuntimeError as error:  # such as a kernel larger than the map: then it has to raise as before
        right = error
    prepare(model, None, Arithmetic())
    with torch.no_grad():
        if isinstance(right, RuntimeError):
            with pytest.raises(RuntimeError, match=re.escape(str(right)[:20])):
                model(x)
        else:
            torch.testing.assert_close(model(x), right, **CLOSE)


def test_weights_that_change_count():
    """A model_fn that is done is no promise that weights stay."""
    model = Net().eval()
    prepare(model, None, Arithmetic())
    with torch.no_grad():
        before = model(images(2))
        model.deep.weight.mul_(3)
        changed = model(images(2))
        model.deep.weight = nn.Parameter(model.deep.weight / 3)
        again = model(images(2))
    assert not torch.allclose(before, changed)
    torch.testing.assert_close(before, again, **CLOSE)


def test_a_gradient_is_one_of_the_kernel():
    model = Net().eval()
    prepare(model, None, Arithmetic())
    with torch.no_grad():
        model(images(2))
    model(images(2)).sum().backward()
    assert model.deep.weight.grad.abs().sum() > 0


def test_a_wrong_input_raises_what_torch_says():
    model = Net().eval()
    prepare(model, None, Arithmetic())
    with torch.no_grad(), pytest.raises(RuntimeError, match="expected input.* to have 3 channels"):
        model(torch.randn(2, 4, 2, 2))


# --- packed convolutions


def as_torch_has_it(layer, x):
    """What torch's own code makes of values in the layout that the layer's weights are in."""
    with torch.no_grad():
        return type(layer).forward(layer, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 1, "bias": False},
        {"kernel_size": 3, "padding": (1, 2), "stride": 2, "dilation": 2},
        {"kernel_size": 3, "padding": 1, "groups": 32},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    ],
    ids=str,
)
def test_packed_weights_give_the_same_bits(options, dtype):
    """In torch's layout and in channels_last, on a map that they were packed for and on others, few pixels and many.

    A single record torch may convolve by other means than oneDNN, so that is the same to rounding.
    """
    model = nn.Sequential(nn.Conv2d(32, 32, **options)).eval().to(dtype)
    prepare(model, None, Arithmetic())
    for count, side in [(2, 6), (3, 6), (1, 9), (2, 6), (80, 9)]:
        x = torch.randn(count, 32, side, side + 1).to(dtype)
        for values in (x.to(memory_format=torch.channels_last), x):
            with torch.no_grad():
                result = model(values)
            right = as_torch_has_it(model[0], values)
            torch.testing.assert_close(result, right, **(SAME if count > 1 else CLOSE_IN[dtype]))
            assert result.stride() == right.stride()


def packed(layer):
    return layer.forward._forward if hasattr(layer.forward, "_matrices") else layer.forward


def test_weights_are_packed_once_and_again_when_they_change():
    model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1)).eval()
    prepare(model, None, Arithmetic())
    x = torch.randn(2, 32, 6, 6).to(memory_format=torch.channels_last)
    with torch.no_grad():
        before = model(x)
        first = packed(model[0])._packed[1]
        model(x[:1])
        assert packed(model[0])._packed[1] is first
        model[0].weight.mul_(2)
        model[0].bias.mul_(2)
        assert torch.equal(model(x), before * 2)
        assert packed(model[0])._packed[1] is not first


def test_a_model_whose_weights_are_packed_can_be_copied_pickled_traced_and_trained():
    """All that a predict_fn may do with a model of its own."""
    model = Net().eval()
    prepare(model, None, Arithmetic())
    x = images(2, 8).to(memory_format=torch.channels_last)
    with torch.no_grad():
        right = model(x)
        assert packed(model.middle)._packed is not None
        torch.testing.assert_close(copy.deepcopy(model)(x), right, **CLOSE)
        torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), right, **CLOSE)
        torch.testing.assert_close(torch.jit.trace(model, x)(x), right, **CLOSE)
    model(x).sum().backward()
    assert model.middle.weight.grad.abs().sum() > 0


def test_a_users_own_autocast_is_one():
    model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.Flatten(), nn.Linear(32 * 36, 32)).eval()
    prepare(model, None, Arithmetic())
    x = torch.randn(64, 32, 6, 6).to(memory_format=torch.channels_last)
    with torch.no_grad():
        plain = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(x).dtype == torch.bfloat16
        assert torch.equal(model(x), plain)


def test_without_onednn_convolutions_are_torchs_own():
    """A user turns it off for numbers that are his other machine's."""
    model = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1)).eval()
    prepare(model, None, Arithmetic())
    x = torch.randn(2, 32, 6, 6).to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(model(x), as_torch_has_it(model[0], x))


# --- linear layers


@pytest.fixture
def amd(monkeypatch):
    """oneDNN's product, whatever CPU this is."""
    monkeypatch.setattr(linear_module, "is_amd", lambda: True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(512,), (1, 512), (3, 512), (64, 512), (2, 40, 512), (0, 512)], ids=str)
def test_a_linear_layer_through_onednn(amd, shape, bias):
    """The same to rounding, whatever the values' shape, with and without a bias."""
    model = nn.Sequential(nn.Linear(512, 256, bias=bias)).eval()
    x = torch.randn(*shape)
    right = expected(model, x)
    prepare(model, None, Arithmetic())
    with torch.no_grad():
        torch.testing.assert_close(model(x), right, **CLOSE)
        torch.testing.assert_close(model(x.t().contiguous().t() if x.dim() == 2 else x), right, **CLOSE)


def test_onednn_takes_large_products_only(amd, monkeypatch):
    calls = []
    operator = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *given: calls.append(len(given[0])) or operator(*given))
    model = nn.Sequential(nn.Linear(512, 256)).eval()
    prepare(model, None, Arithmetic())
    with torch.no_grad():
        for count in (1, 3, 7, 8, 100):
            model(torch.randn(count, 512))
    assert calls == [8, 100]


def test_without_onednn_linear_layers_are_torchs_own(amd):
    model = nn.Sequential(nn.Linear(512, 256)).eval()
    prepare(model, None, Arithmetic())
    x = torch.randn(64, 512)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(model(x), as_torch_has_it(model[0], x))


def test_a_linear_layer_that_is_trained_or_given_what_it_does_not_take(amd):
    model = nn.Sequential(nn.Linear(512, 256)).eval()
    prepare(model, None, Arithmetic())
    model(torch.randn(64, 512)).sum().backward()
    assert model[0].weight.grad.abs().sum() > 0
    with torch.no_grad(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.randn(64, 511))


# --- batch norms


class Normed(nn.Module):
    """Norms that can be folded, one that cannot since its input goes elsewhere too, and one that is used twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.one_norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.two, self.two_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, affine=False)
        self.open, self.open_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.shared, self.drop = nn.BatchNorm2d(4), nn.Dropout(0.0)
        for norm in (self.one_norm, self.two_norm, self.open_norm, self.shared):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = self.two_norm(self.two(self.one_norm(self.one(x)).relu()))
        y = self.open(self.shared(self.shared(x)))
        return self.drop(self.open_norm(y) + y)


def folded(model):
    return {name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d) and "forward" in vars(part)}


def test_batch_norms_are_folded_where_nothing_else_looks():
    model = Normed().eval()
    right = expected(model, images(2, 6))
    prepare(model, None, Arithmetic())
    assert folded(model) == {"one_norm", "two_norm"}
    with torch.no_grad():
        torch.testing.assert_close(model(images(2, 6)), right, **CLOSE)


def test_a_model_put_into_training_normalises_by_the_batch_as_before():
    model = Normed().eval()
    other = copy.deepcopy(model)
    prepare(model, None, Arithmetic())
    with torch.no_grad():
        torch.testing.assert_close(model.train()(images(4, 6)), other.train()(images(4, 6)), **CLOSE)


@pytest.mark.parametrize("reason", ["training", "hook", "no way back", "looks at values", "another forward"])
def test_what_cannot_be_folded_stays(reason):
    model = Normed()
    model.train(reason == "training")
    if reason == "hook":
        model.one.register_forward_hook(lambda *_: None)
        model.two.register_forward_pre_hook(lambda *_: None)
    elif reason == "no way back":
        nn.init.zeros_(model.one_norm.weight)
    elif reason == "looks at values":
        model = type(
            "Looking", (Normed,), {"forward": lambda self, x: Normed.forward(self, x) if x.sum() > -1e9 else x}
        )().eval()
    elif reason == "another forward":
        forward = model.forward
        model.forward = lambda x: forward(x) + 1
    right = expected(model, images(2, 6))
    prepare(model, None, Arithmetic())
    assert folded(model) == ({"two_norm"} if reason == "no way back" else set())
    with torch.no_grad():
        torch.testing.assert_close(model(images(2, 6)), right, **CLOSE)


# --- precision


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["module", "tuple", "dict", "attribute"])
def test_lower_precision_wherever_the_module_is(precision, kind):
    """Close to float32, float32 again when it comes out, and really computed in fewer bits."""
    module = Net().eval()
    model = {"module": module, "tuple": ("x", module), "dict": {"net": module}, "attribute": type("Pipe", (), {})()}[kind]
    if kind == "attribute":
        model.net = module
    right = expected(module, images(6))
    prepare(model, None, Arithmetic(precision=precision))
    with torch.no_grad():
        result = module(images(6))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, right, rtol=0.1, atol=0.05)
    assert not torch.allclose(result, right, rtol=1e-6, atol=1e-6)
    assert module.fc.weight.dtype == getattr(torch, precision)
    assert module.norm.running_var.dtype == torch.float32


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_precision_that_this_cpu_has_no_instructions_for_is_pointed_out(precision):
    """Where oneDNN says that it has, as on CPUs with AMX, nothing is said."""
    warnings = prepare(Net().eval(), None, Arithmetic(precision=precision)).warnings
    computes = {"bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported, "float16": torch.ops.mkldnn._is_mkldnn_fp16_supported}
    said = [] if computes[precision]() else [f"Rayxform.Precision is {precision}, for which this machine's CPU"]
    assert [one.partition(" (")[0] for one in warnings] == said
    assert prepare(Net().eval(), None, Arithmetic()).warnings == []


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, images(2))], ids=["script", "trace"])
def test_torchscript_in_lower_precision(make, tmp_path):
    torch.jit.save(make(Net().eval()), tmp_path / "model.pt")
    model = torch.jit.load(tmp_path / "model.pt")
    with torch.no_grad():
        right = model(images(3))
        prepare(model, None, Arithmetic(precision="bfloat16"))
        result = model(images(3))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, right, rtol=0.1, atol=0.05)
    assert not torch.equal(result, right)


def test_methods_other_than_forward_compute_so_too(tmp_path):
    """A handler may call a method of the model; outside autocast the types of weights and inputs would not fit."""
    handler = handler_of(
        tmp_path,
        """
        def predict_fn(data, model):
            model.double_check = 1
            return model.embed(torch.tensor(data)).float().tolist()
        """,
        "def embed(self, x): return self.fc(x)",
        Arithmetic(precision="bfloat16"),
    )
    assert len(ask(handler, [[1.0] * 16])) == 1


def test_precision_without_a_module_is_refused():
    with pytest.raises(ModelLoadError, match=r"Rayxform\.Precision, Rayxform\.ModelMicroBatch.*returned a float"):
        prepare(0.5, None, Arithmetic(precision="bfloat16", micro_batch=8))


# --- micro-batches


def test_pieces_are_of_one_size_and_results_in_order():
    sizes = []

    def forward(x, *, plus):
        sizes.append(len(x))
        return {"y": x * 2 + plus, "name": "n"}

    cut = MicroBatches(forward, 4)
    x = torch.arange(10.0)
    result = cut(x, plus=1)
    assert torch.equal(result["y"], x * 2 + 1)
    assert result["name"] == "n"
    assert sizes == [4, 4, 2]
    sizes.clear()
    cut(torch.arange(9.0), plus=torch.ones(9))
    assert sizes == [3, 3, 3]


def test_what_belongs_together_is_not_cut():
    """A model that says one thing of all records, or takes tensors of several lengths, gets them whole."""
    whole = MicroBatches(lambda x: x.mean(), 2)
    assert whole(torch.arange(5.0)) == 2
    assert whole(torch.arange(7.0)) == 3
    two = MicroBatches(lambda x, y: x.sum() + y.sum(), 2)
    assert two(torch.ones(5), torch.ones(3)) == 8


@pytest.mark.parametrize(
    ("seconds", "size"),
    [({4: 2.0, 8: 1.0, 16: 3.0}, 8), ({4: 1.0, 8: 1.01, 16: 1.5}, 8), ({4: 1.0, 26: 1.0}, 26), ({5: 1.0}, 5)],
)
def test_the_largest_of_the_fastest_sizes(seconds, size):
    assert best_size(seconds) == size


@pytest.mark.parametrize(("count", "sizes"), [(5, [4, 5]), (8, [4, 8]), (26, [4, 8, 16, 26])])
def test_sizes_to_try(count, sizes):
    assert candidates(count) == sizes


def test_a_size_is_looked_for_once_on_a_machine(tmp_path):
    """What one worker found, the next one uses."""
    calls = []

    def forward(x):
        calls.append(len(x))
        return x

    first = MicroBatches(forward, None, tmp_path / "a.json")
    first(torch.arange(20.0))
    assert {4, 8, 16, 20} <= set(calls)
    (tmp_path / "a.json").write_text(json.dumps({"size": 5}))
    calls.clear()
    second = MicroBatches(forward, None, tmp_path / "a.json")
    assert torch.equal(second(torch.arange(20.0)), torch.arange(20.0))
    assert second.size == 5
    assert calls == [5, 5, 5, 5]


def test_what_a_first_call_takes_is_no_part_of_the_search(tmp_path, monkeypatch):
    """A model is compiled then, which takes longer than the search may: its smallest size would be the only one tried."""
    monkeypatch.setattr("rayxform.model.runtime.micro_batch.SEARCH_S", 1.0)
    calls = []

    def forward(x):
        if not calls:
            time.sleep(1.1)
        calls.append(len(x))
        return x

    MicroBatches(forward, None, tmp_path / "a.json")(torch.arange(20.0))
    assert {4, 8, 16, 20} <= set(calls)
    assert set(json.loads((tmp_path / "a.json").read_text())["seconds_per_record"]) == {"4", "8", "16", "20"}


# --- compiled


@pytest.fixture(scope="module")
def compiled_folder(tmp_path_factory):
    """Compiling takes seconds, so what one test compiled the next one finds."""
    return str(tmp_path_factory.mktemp("compiled"))


def test_compiled_once_and_loaded_by_the_others(compiled_folder):
    """Any number of records, one compilation for all workers, the same results; another shape is compiled anew."""
    right = {count: expected(Net().eval(), images(count)) for count in (1, 2, 5, 9)}
    for worker in range(2):
        model = Net().eval()
        runtime = prepare(model, None, Arithmetic(compile=True, model="net", folder=compiled_folder))
        with torch.no_grad():
            for count in (5, 1, 9, 2):
                torch.testing.assert_close(model(images(count)), right[count], **CLOSE)
        assert runtime.warnings == []
        packages = list(Path(compiled_folder).glob("*.pt2"))
        assert len(packages) == 1, worker
    assert packages[0].stat().st_nlink == 1


def test_compiled_in_lower_precision_with_names_and_a_dict(compiled_folder):
    model = Named().eval()
    ids, mask = torch.randint(0, 10, (6, 4)), torch.rand(6, 4)
    right = expected(model, ids, mask, scale=2.0)
    arithmetic = Arithmetic(precision="bfloat16", compile=True, micro_batch=4, model="named", folder=compiled_folder)
    runtime = prepare(model, None, arithmetic)
    before = list(runtime.warnings)
    with torch.no_grad():
        result = model(ids, mask=mask, scale=2.0)
    assert runtime.warnings == before
    assert len(list(Path(compiled_folder).glob("*.pt2"))) >= 1
    for name in right:
        torch.testing.assert_close(result[name], right[name], rtol=0.1, atol=0.05)


def test_linear_layers_compiled_for_amd(amd, compiled_folder):
    """By the job, whose weights are constants, and by the user's own code, whose are not."""
    model = nn.Sequential(nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 8)).eval()
    x = torch.randn(64, 512)
    right = expected(model, x)
    by_user, by_job = copy.deepcopy(model), model
    prepare(by_user, None, Arithmetic())
    runtime = prepare(by_job, None, Arithmetic(compile=True, model="linear", folder=compiled_folder))
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(by_user)(x), right, **CLOSE)
        torch.testing.assert_close(by_job(x), right, **CLOSE)
    assert runtime.warnings == []


def test_what_torch_cannot_compile_runs_as_it_is(compiled_folder):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(x) if x.sum().item() > 0 else x

    model = Branching().eval()
    runtime = prepare(model, None, Arithmetic(compile=True, model="branching", folder=compiled_folder))
    with torch.no_grad():
        assert torch.equal(model(-torch.ones(3, 2)), -torch.ones(3, 2))
        model(-torch.ones(3, 2))
    assert len(runtime.warnings) == 1
    assert "runs uncompiled" in runtime.warnings[0]


def test_torchscript_is_not_compiled(compiled_folder):
    with pytest.raises(ModelLoadError, match="TorchScript, which torch cannot compile"):
        prepare(torch.jit.script(Net().eval()), None, Arithmetic(compile=True, folder=compiled_folder))


def test_no_compiler_is_said_at_once(compiled_folder):
    from torch._inductor import config, cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    missing = pytest.raises(ModelLoadError, match=r"no C\+\+ compiler.*leave Compile out")
    with config.patch({"cpp.cxx": ("/nowhere/g++",)}), missing:
        prepare(Net().eval(), None, Arithmetic(compile=True, folder=compiled_folder))
    cpp_builder.cpp_compiler_search.cache_clear()


def test_a_key_tells_models_apart():
    """Their files, their settings, and the code of their classes, wherever it lies."""
    keys = [
        model_key(Net(), {"model": "a", "precision": "float32"}),
        model_key(Net(), {"model": "b", "precision": "float32"}),
        model_key(Net(), {"model": "a", "precision": "bfloat16"}),
        model_key(nn.Linear(2, 2), {"model": "a", "precision": "float32"}),
    ]
    assert len(set(keys)) == 4
    assert keys[0] == model_key(Net(), {"model": "a", "precision": "float32"})


# --- through a handler


def handler_of(folder, code, method, arithmetic):
    source = f"""
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(16, 5)
    def forward(self, x): return self.fc(x)
    {method}

def model_fn(folder): return Model().eval()
"""
    lines = [line.removeprefix("        ") for line in code.splitlines()]
    (folder / "inference.py").write_text(source + "\n".join(lines))
    return Handler.load(folder, folder / "inference.py", {}, 1, arithmetic)


def ask(handler, data):
    context = InvocationContext("in", 0, len(data), 1, JSON, JSON, handler.model_dir)
    return json.loads(handler.transform(json.dumps(data).encode(), JSON, JSON, context).body)


def test_an_unmodified_handler_in_all_settings(tmp_path, compiled_folder):
    """The default functions around the user's model, with every setting at once: the same predictions but for digits."""
    data = [[float(row + column) / 9 for column in range(16)] for row in range(11)]
    plain = ask(handler_of(tmp_path, "", "", Arithmetic()), data)
    arithmetic = Arithmetic(precision="bfloat16", compile=True, micro_batch=0, model="handler", folder=compiled_folder)
    handler = handler_of(tmp_path, "", "", arithmetic)
    torch.testing.assert_close(torch.tensor(ask(handler, data)), torch.tensor(plain), rtol=0.1, atol=0.05)
    assert [one for one in handler.warnings if "has no instructions" not in one] == []
    assert len(handler.micro_batch_sizes) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("compile_", [False, True])
def test_on_a_gpu(compile_, compiled_folder):
    model = Net().eval().cuda()
    right = expected(model, images(5).cuda())
    prepare(model, None, Arithmetic(precision="bfloat16", compile=compile_, micro_batch=4, model="gpu", folder=compiled_folder))
    with torch.no_grad():
        torch.testing.assert_close(model(images(5).cuda()), right, rtol=0.1, atol=0.05)
