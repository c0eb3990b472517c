"""Every function takes the context and notes what it saw; the answer is all of it."""

import json


def model_fn(model_dir, context):
    return {"loaded_with": [context.object, context.n_records, context.system_properties["model_dir"] == model_dir]}


def input_fn(body, content_type, context):
    return {"input_fn": [context.object, context.first_record, context.n_records, context.attempt]}


def predict_fn(data, model, context):
    headers = [context.get_request_header(0, "content-type"), context.get_all_request_header(0)["Accept"]]
    return data | model | {"predict_fn": headers}


def output_fn(prediction, accept, context=None):
    context.set_response_content_type(0, "text/plain")
    return json.dumps(prediction | {"output_fn": context.system_properties["gpu_id"]})
