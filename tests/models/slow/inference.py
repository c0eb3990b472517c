"""Answers with what it was asked, after a while."""

import time


def transform_fn(model, body, content_type, accept):
    time.sleep(0.1)
    return body


def model_fn(model_dir):
    return None
