"""A mini-batch of images in pieces: only where a model computes each record by itself, and then with the same results."""

import copy
import inspect

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from rayxform.model import Arithmetic
from rayxform.model.runtime import prepare, small_pieces

SIDE = 8
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def pieces_of(images_in_a_piece, side, monkeypatch):
    """The numbers of records of which a forward is asked in pieces from here on, as they come."""
    seen = []
    cut = small_pieces.pieces_of
    monkeypatch.setattr(small_pieces, "MAX_BYTES", images_in_a_piece * side * side * 4)
    monkeypatch.setattr(small_pieces, "pieces_of", lambda *given: seen.append(given[1:3]) or cut(*given))
    return seen


@pytest.fixture
def calls(monkeypatch):
    """Those where a piece is three images of 8x8: how many are in a piece, and in all."""
    return pieces_of(3, SIDE, monkeypatch)


def images(count, side=SIDE):
    torch.manual_seed(count)
    return torch.randn(count, 3, side, side)


def wrapped_relu(x):
    return (x - x.mean(0)).relu()


wrapped_relu.__name__ = "relu"  # a user's own function with the name of one of torch's
torch.fx.wrap("wrapped_relu")


class Net(nn.Module):
    """A convolution, and then what a test says."""

    def __init__(self, then):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.scale, self.per_record = nn.Parameter(torch.ones(4, 1, 1)), nn.Parameter(torch.ones(7, 4, 1, 1))
        self.fc = nn.Linear(4 * SIDE * SIDE, 5)
        self.kept, self.list = None, []
        self._then = then

    def forward(self, x):
        return self._then(self, self.drop(self.norm(self.conv(x))).relu())


def keep(net, x):
    net.kept = x
    return x


ALONE = {
    "flatten": lambda net, x: net.fc(torch.flatten(x, 1)),
    "view of size": lambda net, x: net.fc(x.contiguous().view(x.size(0), -1)),
    "view of shape": lambda net, x: net.fc(x.reshape(x.shape[0], 4 * SIDE * SIDE)).softmax(1),
    "pools": lambda _, x: functional.adaptive_avg_pool2d(functional.max_pool2d(x, 2), 1).flatten(1),
    "in place": lambda _, x: x.add_(x * 2).mul_(x).mean((2, 3)),
    "a weight for each channel": lambda net, x: (net.scale * x + 1).mean((2, 3)),
    "a constant": lambda _, x: x - torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1),
    "several results": lambda net, x: {"logits": net.fc(x.flatten(1)), "maps": torch.cat([x, x], 1)},
    "dropout that is out": lambda net, x: functional.dropout(x, 0.5, training=net.training).permute(0, 2, 3, 1),
}
TOGETHER = {
    "less the mean": lambda _, x: x - x.mean(0),
    "a mean of all": lambda _, x: x - x.mean(),
    "softmax over records": lambda _, x: functional.softmax(x, dim=0),
    "softmax over what may be records": lambda _, x: functional.softmax(x, dim=-4),
    "the largest": lambda _, x: x / x.amax(),
    "a shape of its own": lambda _, x: x.reshape(-1, 4),
    "all in one": lambda _, x: torch.flatten(x),
    "records turned": lambda _, x: x.permute(1, 0, 2, 3),
    "records rolled": lambda _, x: x + x.roll(1, 0),
    "the first record": lambda _, x: x + x[0],
    "records put behind one another": lambda _, x: torch.cat([x, x]),
    "how many there are": lambda _, x: x * x.shape[0],
    "a weight for each record": lambda net, x: x * net.per_record,
    "a constant for each record": lambda _, x: x * torch.arange(7.0).view(7, 1, 1, 1).repeat(1, 1, 2, 4).repeat(1, 1, 4, 2),
    "a user's function": lambda _, x: wrapped_relu(x),
    "a value that is kept": keep,
    "values that are kept": lambda net, x: net.list.append(x) or x,
}


@pytest.mark.parametrize("name", ALONE)
def test_records_that_are_computed_alone(name, calls):
    model = Net(ALONE[name]).eval()
    with torch.no_grad():
        right = copy.deepcopy(model)(images(7))
        prepare(model, None, Arithmetic())
        result = model(images(7))
        torch.testing.assert_close(result, right, **CLOSE)
        model(images(3))
    assert calls == [(3, 7)]


@pytest.mark.parametrize("name", TOGETHER)
def test_records_that_may_be_mixed_stay_together(name, calls):
    """In each of these a record's result depends on the others, or somebody finds the last call's values in the model."""
    model = Net(TOGETHER[name]).eval()
    other = copy.deepcopy(model)
    prepare(model, None, Arithmetic())
    with torch.no_grad():
        torch.testing.assert_close(model(images(7)), other(images(7)), **CLOSE)
    assert calls == []


def test_what_is_random_stays_together(calls):
    model = Net(lambda _, x: functional.dropout(x, 0.5)).eval()
    prepare(model, None, Arithmetic())
    with torch.no_grad():
        assert len(model(images(7))) == 7
    assert calls == []


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny", "squeezenet1_0"])
def test_models_of_torchvision(name, monkeypatch):
    cut = pieces_of(2, 64, monkeypatch)
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)().eval()
    with torch.no_grad():
        right = model(images(5, 64))
        prepare(model, None, Arithmetic())
        torch.testing.assert_close(model(images(5, 64)), right, rtol=1e-3, atol=1e-3 * float(right.abs().max()))
    assert cut == [(2, 5)]


def test_who_looks_at_what_goes_by_sees_all_of_it(calls):
    """As a hook does that takes the features behind a layer."""
    model = Net(ALONE["flatten"]).eval()
    prepare(model, None, Arithmetic())
    seen = []
    hook = model.conv.register_forward_hook(lambda *given: seen.append(len(given[2])))
    with torch.no_grad():
        model(images(7))
        hook.remove()
        model(images(7))
    assert (seen, calls) == ([7], [(3, 7)])


def test_a_model_in_training_sees_all_records(calls):
    """A batch norm then takes the mean of what it is given."""
    model = Net(lambda _, x: x).eval()
    model.drop.p = 0.0
    other = copy.deepcopy(model).train()
    prepare(model, None, Arithmetic())
    model.norm.train()
    with torch.no_grad():
        torch.testing.assert_close(model(images(7)), other(images(7)), **CLOSE)
    assert calls == []


def test_what_a_model_takes_can_still_be_asked():
    """As libraries do that pass a model those of its inputs that it has."""
    model = Net(ALONE["flatten"]).eval()
    before = [inspect.signature(one.forward) for one in (model, model.conv, model.fc)]
    prepare(model, None, Arithmetic())
    assert "forward" in vars(model)
    assert [inspect.signature(one.forward) for one in (model, model.conv, model.fc)] == before


@pytest.mark.parametrize("members", [{"micro_batch": 4}, {"micro_batch": 100}], ids=str)
def test_a_job_that_says_how_many_has_it_so(members, calls):
    model = Net(ALONE["flatten"]).eval()
    prepare(model, None, Arithmetic(**members))
    with torch.no_grad():
        model(images(7))
    assert calls == []


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 20), st.sampled_from([3, 5, 8, 16]), st.sampled_from(["float32", "bfloat16"]))
def test_any_number_of_images_of_any_size(count, side, precision):
    """Whatever a piece holds, the results are those of the whole, in their order."""
    model = Net(lambda _, x: x.mean((2, 3))).eval()
    x = images(count, side)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        right = copy.deepcopy(model)(x)
        patch.setattr(small_pieces, "MAX_BYTES", 200)
        prepare(model, None, Arithmetic(precision))
        tolerance = CLOSE if precision == "float32" else {"rtol": 0.05, "atol": 0.05}
        torch.testing.assert_close(model(x), right, **tolerance)
