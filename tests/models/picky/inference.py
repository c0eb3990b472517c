"""Raises for a request with the word "poison" in it, counts what it is asked, and answers {} for "odd"."""

import json
import os


def model_fn(model_dir):
    return os.environ["REQUESTS"]


def transform_fn(folder, body, content_type, accept, context):
    with open(os.path.join(folder, f"{context.first_record:09d}-{context.n_records:09d}-{context.attempt}"), "wb") as file:
        file.write(body)
    if b"poison" in body:
        raise ValueError("cannot digest this")
    return "\n".join("not JSON" if b"odd" in line else json.dumps(len(line)) for line in body.split(b"\n"))
