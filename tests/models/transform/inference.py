"""One transform_fn instead of three functions."""


class Shouter:
    def shout(self, text):
        return text.upper()


def model_fn(model_dir):
    return Shouter()


def transform_fn(model, body, content_type, accept):
    return model.shout(body), "text/x-loud"
