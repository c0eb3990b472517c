"""The seed's own script, after changing its imports."""

import pytest

from rayxform import JobError, PyTorchModel, Transformer
from tests.conftest import MODELS

pytestmark = pytest.mark.usefixtures("ray_address")


def transformer_for(workspace, **arguments):
    model = PyTorchModel(
        model_data=None,
        entry_point="inference.py",
        source_dir=str(MODELS / "counting"),
        framework_version="1.12.0",
        py_version="py38",
        role="AWSRoleName",
        env={"REQUESTS": str(workspace.requests)},
    )
    return model.transformer(
        instance_count=1,
        instance_type="ml.m5.xlarge",
        strategy="MultiRecord",
        max_payload=1,
        output_path=str(workspace.folder / "output"),
        **arguments,
    )


def test_the_seeds_script_runs_and_can_be_waited_for(workspace):
    workspace.write("a.jsonl", b'{"id":1}\n{"id":22}\n')
    transformer = transformer_for(workspace)
    transformer.transform(
        data=str(workspace.folder / "input"),
        data_type="S3Prefix",
        content_type="application/jsonlines",
        split_type="Line",
        wait=False,
    )
    transformer.wait()
    expected = b'{"SageMakerOutput":{"length": 8}}\n{"SageMakerOutput":{"length": 9}}\n'
    assert workspace.outputs() == {"a.jsonl.out": expected}


def test_a_transformer_without_a_model_or_output_is_refused():
    with pytest.raises(JobError, match="pass a rayxform.PyTorchModel"):
        Transformer("my-model", output_path="out")
    with pytest.raises(JobError, match="output_path is missing"):
        Transformer(PyTorchModel(source_dir="src"))
