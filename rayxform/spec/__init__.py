"""The job: AWS's CreateTransformJob with ``Model`` and ``Rayxform``, checked as a whole before anything is started."""

from rayxform.spec.job import TransformJob, to_members
from rayxform.spec.loading import load_job, parse_job
from rayxform.spec.schema import job_schema

__all__ = ["TransformJob", "job_schema", "load_job", "parse_job", "to_members"]
