"""StageInput: what input_fn returns is the same in the process that predicts, whatever it is; so are answers and errors."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis.extra import numpy as hnp

from rayxform.errors import InvocationError, ModelLoadError
from rayxform.model import InvocationContext, ModelProcess
from rayxform.model.staging import dump_input, load_input
from rayxform.model.zygote import ModelZygote, serving_zygote

CODE = """
import os, torch
print("imported", flush=True)
class Sizes(list): pass
HERE = os.path.dirname(__file__)
def model_fn(folder):
    open(HERE + "/loads", "a").write("loaded\\n")
def input_fn(body, content_type, context):
    open(HERE + "/reads", "a").write("read\\n")
    if body == b"bad": raise ValueError("cannot read " + context.object)
    if body == b"crash": os.abort()
    if body == b"odd": return lambda: 1
    return Sizes([torch.tensor([len(body)]), body])
def predict_fn(data, model):
    assert type(data) is Sizes
    data[0] += 1  # what was sent may be written to
    return data
def output_fn(prediction, accept): return prediction[1] + b" %d" % int(prediction[0])
"""


@given(
    hnp.arrays(
        hnp.scalar_dtypes().map(lambda dtype: dtype.newbyteorder("=")),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        elements={"allow_nan": False},
    )
)
def test_arrays_come_as_they_were(array):
    loaded = load_input(dump_input({"x": array, "again": [array.T]}))
    for sent, came in ((array, loaded["x"]), (array.T, loaded["again"][0])):
        assert (came.dtype, came.shape) == (sent.dtype, sent.shape)
        assert came.tobytes() == sent.tobytes()


TENSORS = {
    "bytes": torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4),
    "floats": torch.linspace(0, 1, 7),
    "bfloat16": torch.linspace(0, 1, 7).to(torch.bfloat16),
    "flags": torch.tensor([True, False]),
    "one number": torch.tensor(3.5),
    "nothing": torch.empty(0, 3),
    "complex": torch.tensor([1 + 2j]),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "a view": torch.arange(24).reshape(4, 6)[1:3, ::2],
    "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "with gradient": torch.ones(2, requires_grad=True),
    "sparse": torch.eye(3).to_sparse(),
    "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_come_as_they_were(name):
    tensor = TENSORS[name]
    came = load_input(dump_input((tensor, 1)))[0]
    assert (came.dtype, came.shape, came.layout) == (tensor.dtype, tensor.shape, tensor.layout)
    assert came.requires_grad == tensor.requires_grad
    same = (came.to_dense(), tensor.to_dense()) if came.is_sparse else (came, tensor)
    assert torch.equal(*same)
    if name == "channels last":  # in which convolutions compute otherwise, to the last digit
        assert came.is_contiguous(memory_format=torch.channels_last)


def test_no_byte_of_an_array_is_pickled():
    pixels = torch.zeros(50, 3, 224, 224, dtype=torch.uint8)
    staged = dump_input([pixels, pixels.numpy()])
    assert len(staged) < 2 * pixels.nbytes + 2000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: pinned memory is for the copy to one")
def test_beside_a_gpu_arrays_come_in_pinned_memory():
    pixels = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4)
    came, again = load_input(dump_input([pixels, pixels.float()]))
    assert came.is_pinned()
    assert again.is_pinned()
    assert torch.equal(came.to("cuda", non_blocking=True).cpu(), pixels)


@pytest.fixture(scope="module")
def zygote():
    """Imports torch once for all processes of these tests, as for those of a job."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # as Ray's workers have it
        with serving_zygote(ModelZygote(["torch"], {}, 1) if sys.platform == "linux" else None):
            yield


@pytest.fixture
def start(tmp_path, zygote):
    models = []

    def start(code=CODE, **arguments):
        entry_point = tmp_path / "inference.py"
        entry_point.write_text(code)
        models.append(ModelProcess(tmp_path, entry_point, {}, 1, timeout_s=30, **arguments))
        return models[-1]

    yield start
    for model in models:
        model.close()


def ask(model, body, staged=None):
    about = InvocationContext(f"object of {body.decode()}", 0, 1, 1, "a/b", "a/b", "")
    return model.transform(body, "a/b", "a/b", about, staged).body


def test_input_is_read_in_one_process_and_used_in_another(start, tmp_path):
    reader, model = start(reads_input=True), start()
    staged = ask(reader, b"record")
    assert ask(model, b"record", staged) == ask(model, b"record") == b"record 7"
    assert (tmp_path / "loads").read_text() == "loaded\n"  # by the one that predicts alone
    assert (tmp_path / "reads").read_text() == "read\n" * 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"bad", "input_fn raised ValueError: cannot read object of bad"),
        (b"odd", "what input_fn returned cannot be sent to another process"),
        (b"crash", "the model's process ended: it was killed by SIGABRT"),
    ],
)
def test_what_cannot_be_read_is_said_and_the_next_is_read(start, body, message):
    reader = start(reads_input=True)
    with pytest.raises(InvocationError, match=message):
        ask(reader, body)
    assert ask(start(), b"next", ask(reader, b"next")) == b"next 5"


def test_a_transform_fn_has_no_input_to_stage(start):
    with pytest.raises(ModelLoadError, match="the entry point defines transform_fn"):
        start("def transform_fn(model, body, content_type, accept): return body\n", reads_input=True)
