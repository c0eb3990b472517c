"""The seed's script with the SageMaker Python SDK v2: nothing is changed but the client's endpoint_url.

Usage: sdk_v2.py ENDPOINT MODEL_DATA SOURCE_DIR INPUT OUTPUT
"""

import sys

import boto3
import sagemaker
from sagemaker.pytorch.model import PyTorchModel

endpoint, model_data, source_dir, input_path, output_path = sys.argv[1:]
client = boto3.client("sagemaker", endpoint_url=endpoint)
session = sagemaker.Session(sagemaker_client=client, default_bucket=output_path.split("/")[2])

pytorch_model = PyTorchModel(
    model_data=model_data,
    entry_point="inference.py",
    source_dir=source_dir,
    framework_version="1.12.0",
    py_version="py38",
    role="arn:aws:iam::000000000000:role/AWSRoleName",
    sagemaker_session=session,
)
transformer = pytorch_model.transformer(
    instance_count=1,
    instance_type="ml.m5.xlarge",
    strategy="MultiRecord",
    max_payload=1,
    output_path=output_path,
    accept="application/jsonlines",
    assemble_with="Line",
)
transformer.transform(
    data=input_path,
    data_type="S3Prefix",
    content_type="application/jsonlines",
    split_type="Line",
    join_source="Input",
    output_filter="$['SageMakerOutput','id','label']",
    wait=False,
)
transformer.wait(logs=False)
print(transformer.latest_transform_job.name)
