"""The job: AWS's CreateTransformJob with ``Model`` and ``Rayxform``, checked as a whole before anything is started.

``members`` defines the members, one class for each of AWS's shapes; ``schema`` draws the JSON Schema and the words of
messages from it. ``reading`` parses the file, ``parsing`` validates it, with ``problems`` for what pydantic found and
``checks`` for the rules that span members. ``job`` is what everything else works with. ``from_aws`` makes members of what
AWS answers, ``writing`` a file of members, and ``confinement`` says what a job may touch.
"""

from rayxform.spec.confinement import check_locations, check_objects
from rayxform.spec.from_aws import container_of, job_members, model_members
from rayxform.spec.job import ExecutionParameters, TransformJob, to_members
from rayxform.spec.parsing import load_job, parse_job
from rayxform.spec.reading import read_members
from rayxform.spec.schema import job_schema
from rayxform.spec.writing import to_yaml

__all__ = [
    "ExecutionParameters",
    "TransformJob",
    "check_locations",
    "check_objects",
    "container_of",
    "job_members",
    "job_schema",
    "load_job",
    "model_members",
    "parse_job",
    "read_members",
    "to_members",
    "to_yaml",
]
