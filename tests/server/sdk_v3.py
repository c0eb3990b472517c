"""The same with the SageMaker Python SDK v3, whose resources mirror the API; AWS_ENDPOINT_URL_SAGEMAKER says where that is.

Usage: sdk_v3.py IMAGE MODEL_DATA INPUT OUTPUT
"""

import sys

from sagemaker.core.resources import Model, TransformJob
from sagemaker.core.shapes import (
    ContainerDefinition,
    DataProcessing,
    TransformDataSource,
    TransformInput,
    TransformOutput,
    TransformResources,
    TransformS3DataSource,
)

image, model_data, input_path, output_path = sys.argv[1:]

model = Model.create(
    model_name="sdk-v3-model",
    primary_container=ContainerDefinition(image=image, model_data_url=model_data),
    execution_role_arn="arn:aws:iam::000000000000:role/AWSRoleName",
)
job = TransformJob.create(
    transform_job_name="sdk-v3-job",
    model_name=model.model_name,
    batch_strategy="MultiRecord",
    max_payload_in_mb=1,
    transform_input=TransformInput(
        data_source=TransformDataSource(s3_data_source=TransformS3DataSource(s3_data_type="S3Prefix", s3_uri=input_path)),
        content_type="application/jsonlines",
        split_type="Line",
    ),
    transform_output=TransformOutput(s3_output_path=output_path, accept="application/jsonlines", assemble_with="Line"),
    transform_resources=TransformResources(instance_type="ml.m5.xlarge", instance_count=1),
    data_processing=DataProcessing(join_source="Input", output_filter="$['SageMakerOutput','id','label']"),
)
job.wait(poll=1)
listed = next(one for one in TransformJob.get_all(name_contains="sdk-v3") if one.transform_job_name == job.transform_job_name)
print(listed.transform_job_name, job.transform_job_status)
