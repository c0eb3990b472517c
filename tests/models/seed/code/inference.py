# fmt: off
# The four functions are those of the document that rayxform was made from, word for word. What it leaves out comes
# before them: the imports, model_load and _decode_request. The net tells red, green and blue images apart.
import base64
import io
import json
import os

import numpy as np
import torch
from PIL import Image
from torch import nn


class Net(nn.Module):
    """A forward that returns a tuple, as the document's distilled ResNet18 has it: logits and features."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        features = self.norm(self.conv(images))
        return features.mean(dim=(2, 3)), features


def model_load():
    return Net().eval()


def _decode_request(request_body):
    images = []
    for line in request_body.splitlines():
        record = json.loads(line)
        image = Image.open(io.BytesIO(base64.b64decode(record['inputs']))).convert('RGB')
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255)
    return torch.stack(images)


def model_fn(model_dir):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model_load()
    with open(os.path.join(model_dir, 'model.pth'), 'rb') as f:
        model.load_state_dict(torch.load(f))
    return model.to(device)

def input_fn(request_body, content_type='application/jsonlines'):
    if content_type == 'application/jsonlines':
        print("Request received : application/jsonlines")
        data = _decode_request(request_body)
        print(f'Num of data in a request: {len(data)}')
        return data
    ...

def predict_fn(input_obj, model):
    print(f'Input Object Shape: {input_obj.shape}')
    output = model(input_obj)[0]
    pred = torch.argmax(output, dim=1)
    return np.array(pred).tolist()

def output_fn(predictions, accept="application/jsonlines"):
    if accept == "application/jsonlines":
        lines = []
        for pred in predictions:
            lines.append({'predictions': pred})
        json_lines = [json.dumps(l) for l in lines]
        json_data = '\n'.join(json_lines)
        return json.dumps(json_data)
    ...
