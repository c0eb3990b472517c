"""The document's own inference.py, unmodified, on real images through a real torch model."""

import json
import os
import sys

import pytest

from rayxform.model import Handler, InvocationContext, find_entry_point
from tests.support import make_seed_model, seed_line

JSON_LINES = "application/jsonlines"
COLORS = {"red": 0, "green": 1, "blue": 2}


@pytest.fixture
def model_dir(tmp_path, monkeypatch):
    """An unpacked archive."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(os, "environ", os.environ.copy())
    make_seed_model(tmp_path)
    return tmp_path


def answer(handler, colors):
    body = "\n".join(seed_line(identifier, color) for identifier, color in enumerate(colors)).encode()
    context = InvocationContext("sample_input.jsonl", 0, len(colors), 1, JSON_LINES, JSON_LINES, handler.model_dir)
    return handler.transform(body, JSON_LINES, JSON_LINES, context)


def test_the_seeds_handler_answers_with_its_lines_in_one_json_string(model_dir):
    """Each image gets its color's class; the lines come doubly encoded, as the document's output_fn writes them."""
    handler = Handler.load(model_dir, find_entry_point(model_dir, None, "inference.py"), {}, threads=1)
    colors = ["blue", "red", "green", "red"]
    response = answer(handler, colors)
    lines = "\n".join(json.dumps({"predictions": COLORS[color]}) for color in colors)
    assert response.body == json.dumps(lines).encode()
    assert response.content_type == JSON_LINES
    assert handler.warnings == ()


def test_the_seeds_handler_answers_a_mini_batch_of_one(model_dir):
    """A file's last mini-batch may hold one record; its answer is still a JSON string of one line."""
    handler = Handler.load(model_dir, find_entry_point(model_dir, None, "inference.py"), {}, threads=1)
    assert json.loads(json.loads(answer(handler, ["green"]).body)) == {"predictions": 1}


def test_an_image_that_is_none_fails_with_the_users_traceback(model_dir):
    """The error names the function, and the traceback begins in inference.py."""
    handler = Handler.load(model_dir, find_entry_point(model_dir, None, "inference.py"), {}, threads=1)
    context = InvocationContext("a.jsonl", 0, 1, 1, JSON_LINES, JSON_LINES, handler.model_dir)
    with pytest.raises(Exception, match=r"input_fn raised .*UnidentifiedImageError") as caught:
        handler.transform(b'{"inputs": "AAAA"}', JSON_LINES, JSON_LINES, context)
    first_frame = caught.value.user_traceback.splitlines()[1]
    assert str(model_dir / "code" / "inference.py") in first_frame
