"""README on the endpoint: its tables name every operation and member, and its code runs."""

import json
import re
from pathlib import Path

import pytest
import yaml
from botocore.loaders import Loader
from botocore.model import ServiceModel

from rayxform.server.settings import make_settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SECTION = README[README.index("## For SageMaker's own clients") : README.index("## Where it differs from SageMaker")]
SHAPES = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))


def members_of(shape, depth=0):
    """The names of a request's members, at any depth."""
    for name, inner in shape.members.items():
        yield name
        if inner.type_name == "structure" and depth < 4:
            yield from members_of(inner, depth + 1)


@pytest.mark.parametrize("operation", ["CreateTransformJob", "CreateModel"])
def test_every_member_has_its_place_in_the_table(operation):
    rows = SECTION[SECTION.index("| member |") : SECTION.index("### Settings")]
    told = set(re.findall(r"\w+", rows))
    # What is below a member that is ignored or refused as a whole is not told one by one.
    whole = {
        "ImageConfig",
        "ContainerMetricsConfig",
        "MultiModelConfig",
        "InferenceExecutionConfig",
        "VpcConfig",
        "ModelAccessConfig",
    }
    below = {
        name for part in whole for name in re.findall(r"\w+", " ".join(names_below(SHAPES.operation_model(operation), part)))
    }
    assert set(members_of(SHAPES.operation_model(operation).input_shape)) - told - below - {"HubContentArn"} == set()


def names_below(operation, name):
    def find(shape, depth=0):
        for key, inner in shape.members.items():
            if inner.type_name == "structure":
                if key == name:
                    yield from members_of(inner)
                elif depth < 4:
                    yield from find(inner, depth + 1)

    return list(find(operation.input_shape))


def test_every_operation_of_the_table_is_served(server):
    rows = SECTION[SECTION.index("| operation |") : SECTION.index("| every other operation")]
    from tests.server.test_operations import call

    named = set(re.findall(r"[A-Z]\w+(?:Jobs?|Models?|Tags)\b", rows))
    served = set(call(server, "Nothing", {})[1]["message"].partition("served are ")[2].split(", "))
    assert named == served


def test_the_settings_are_what_the_server_takes():
    text = next(block for block in re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL) if "AllowedPrefixes" in block)
    settings = make_settings(yaml.safe_load(text), "README")
    assert settings.image_rule("a/pytorch-inference:2").command is None
    assert settings.image_rule("x/xgboost:1").command == "python serve.py {port}"
    assert settings.image_rule("r/my-model:3").endpoint == "http://127.0.0.1:9000"
    assert settings.image_rule("other") is None


def test_every_linked_test_is_there():
    links = re.findall(r"\]\((tests/[^)]+)\)", SECTION)
    assert len(links) >= 20
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_its_code_creates_a_job_and_waits_for_it(server, world):
    world.put_model()
    world.bucket.put("input/a.jsonl", b'{"id": 1}\n')
    first, _, state = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    replaced = {
        "http://127.0.0.1:8750": server.url,
        "BUCKET/model.tar.gz": "BUCKET/models/model.tar.gz",
        "BUCKET": world.bucket.name,
    }
    for old, new in {**replaced, '"resnet18"': f'"{world.model_name}"', '"digits-1"': f'"{world.name}-1"'}.items():
        first = first.replace(old, new)
    names = {}
    exec(first, names)
    assert world.bucket.get("output/a.jsonl.out") == b'{"id": 1}\n'
    exec(state, names)
    parameters = json.loads(json.dumps(world.job("sync")))
    told = names["create_transform_job_sync"](names["sagemaker"], {"Parameters": parameters})
    assert told["TransformJobStatus"] == "Completed"
