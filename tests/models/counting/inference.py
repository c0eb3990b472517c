"""Keeps every request's body in a file, named by its place, and answers with each record's length."""

import json
import os


def model_fn(model_dir):
    return os.environ["REQUESTS"]


def transform_fn(folder, body, content_type, accept, context):
    body = body.encode() if isinstance(body, str) else body  # AWS's toolkit gives text types as str
    name = f"{context.object.replace('/', '_')}-{context.first_record:09d}"
    with open(os.path.join(folder, name), "wb") as file:
        file.write(body)
    if os.environ.get("ECHO"):
        return body
    return "\n".join(json.dumps({"length": len(line)}) for line in body.split(b"\n"))
