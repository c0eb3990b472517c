"""CreateTransformJob, DescribeTransformJob, ListTransformJobs, StopTransformJob. Source: the SageMaker API Reference.

Where the reference and the service differ, the service counts: an unknown job is a ValidationException, not the
ResourceNotFound of the reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import RowMapping

from rayxform.api import read_job
from rayxform.errors import JobError, LocationRefusedError, RequestRefusedError, ServerSettingsError
from rayxform.pipeline.planning import output_of
from rayxform.server.database import JOBS, RESUMABLE, UNFINISHED, Database
from rayxform.server.listing import list_page
from rayxform.server.models import Models
from rayxform.server.settings import ServerSettings
from rayxform.server.shapes import Members
from rayxform.spec import check_locations, parse_job, to_members

MAX_REASON_CHARACTERS = 1024
_DATA_TYPES = ("S3Prefix", "ManifestFile")


class Jobs:
    """The transform jobs of the endpoint."""

    def __init__(self, database: Database, models: Models, settings: ServerSettings, wake: Callable[[], None]) -> None:
        """Keep them in the database; ``wake`` is called when there is something to start or to stop."""
        self._database = database
        self._models = models
        self._settings = settings
        self._wake = wake

    def create(self, members: Members) -> dict[str, Any]:
        """CreateTransformJob: the job is InProgress at once, and runs when its turn comes.

        Raises:
            RequestRefusedError: it is wrong, or may not touch what it names, or its name is taken.
        """
        name, kept = members["TransformJobName"], {key: value for key, value in members.items() if key != "Tags"}
        now = time.time()
        values = {"status": "InProgress", "created_at": now, "modified_at": now, "members": kept}
        if not self._database.insert(JOBS, name=name, job=self._job_members(kept), **values):
            raise RequestRefusedError(
                "ResourceInUse",
                "Job name must be unique within an AWS account and region, and a job with this name already exists "
                f"({self._arn(name)})",
            )
        self._database.set_tags(self._arn(name), members.get("Tags", ()))
        self._wake()
        return {"TransformJobArn": self._arn(name)}

    def describe(self, members: Members) -> dict[str, Any]:
        """DescribeTransformJob, with the members that the service adds, and without those that it leaves out.

        Raises:
            RequestRefusedError: there is no such job.
        """
        name = members["TransformJobName"]
        row = self._find(name)
        if row is None:
            raise RequestRefusedError.invalid(f"Could not find requested job with name: {name}")
        request = row["members"]
        times = {"TransformStartTime": row["started_at"], "TransformEndTime": row["ended_at"]}
        return {
            **request,
            "TransformJobArn": self._arn(name),
            "TransformJobStatus": row["status"],
            "CreationTime": row["created_at"],
            **{key: value for key, value in times.items() if value is not None},
            **({"FailureReason": row["failure_reason"]} if row["failure_reason"] else {}),
            "Environment": request.get("Environment", {}),
            "TransformInput": {"CompressionType": "None", "SplitType": "None", **request["TransformInput"]},
            "TransformOutput": {"AssembleWith": "None", "KmsKeyId": "", **request["TransformOutput"]},
            "DataProcessing": {
                "InputFilter": "$",
                "OutputFilter": "$",
                "JoinSource": "None",
                **request.get("DataProcessing", {}),
            },
        }

    def list(self, members: Members) -> dict[str, Any]:
        """ListTransformJobs."""
        ours = JOBS.c.job_file.is_(None)
        return list_page(self._database, JOBS, "TransformJobSummaries", self._summary, members, ours)

    def stop(self, members: Members) -> None:
        """StopTransformJob: Stopping, and then Stopped.

        Raises:
            RequestRefusedError: there is no such job, or it has ended.
        """
        name = members["TransformJobName"]
        if self._find(name) is None:
            raise RequestRefusedError.invalid(f"Could not find job to update with name {name}")
        self.ask_to_stop(name)

    def ask_to_stop(self, name: str) -> None:
        """Have a job stopped.

        Raises:
            RequestRefusedError: it has ended.
        """
        if not self._database.change_job(name, JOBS.c.status.in_(UNFINISHED), status="Stopping"):
            row = self._database.find(JOBS, name)
            status = row["status"] if row is not None else "Deleted"
            raise RequestRefusedError.invalid(f"The request was rejected because the transform job is in status {status}")
        self._wake()

    def show_file(self, job_file: str) -> None:
        """Show a job of a job file, which is run on demand.

        Raises:
            JobError: it is wrong.
            ServerSettingsError: its name is that of another job.
            StorageError: it cannot be read.
        """
        name, job = read_job_file(job_file)
        now = time.time()
        values = {"status": "Stopped", "created_at": now, "modified_at": now, "job": job, "job_file": job_file}
        if self._database.insert(JOBS, name=name, **values):
            return
        if not self._database.change_job(name, JOBS.c.job_file == job_file):
            raise ServerSettingsError(f"{job_file} is called {name}, and so is another job here; give it a TransformJobName")

    def resume(self, name: str) -> bool:
        """Run a job again that has failed or was stopped, which goes on from where it was; its job file is read again.

        Returns:
            Whether it was one of these.

        Raises:
            JobError: its job file is wrong by now.
            StorageError: its job file cannot be read.
        """
        row = self._database.find(JOBS, name)
        if row is None:
            return False
        anew: dict[str, Any] = {
            "status": "InProgress",
            "failure_reason": None,
            "ended_at": None,
            "deaths": 0,
            "is_begun": False,
        }
        if row["job_file"] is not None:
            anew["job"] = read_job_file(row["job_file"])[1]
        is_begun = self._database.change_job(name, JOBS.c.status.in_(RESUMABLE), **anew)
        self._wake()
        return is_begun

    def has(self, name: str) -> bool:
        """Whether there is such a job."""
        return self._find(name) is not None

    def _find(self, name: str) -> RowMapping | None:
        row = self._database.find(JOBS, name)
        return row if row is not None and row["job_file"] is None else None

    def _summary(self, row: RowMapping) -> dict[str, Any]:
        optional = {"TransformEndTime": row["ended_at"], "FailureReason": row["failure_reason"]}
        return {
            "TransformJobName": row["name"],
            "TransformJobArn": self._arn(row["name"]),
            "CreationTime": row["created_at"],
            "LastModifiedTime": row["modified_at"],
            "TransformJobStatus": row["status"],
            **{key: value for key, value in optional.items() if value},
        }

    def _job_members(self, members: Members) -> dict[str, Any]:
        """The job file of a request.

        The number of workers is this machine's, or the cluster's, matter: InstanceCount sizes a fleet of AWS's.
        """
        data_type = members["TransformInput"]["DataSource"]["S3DataSource"]["S3DataType"]
        if data_type not in _DATA_TYPES:
            raise RequestRefusedError.invalid(
                f"S3DataType {data_type} is not supported for transform jobs; use {' or '.join(_DATA_TYPES)}"
            )
        machine = members["TransformResources"]
        job = {
            **members,
            "Model": self._models.of_job(members["ModelName"]),
            "TransformResources": {"InstanceType": machine["InstanceType"]},
            "Rayxform": {"Compatibility": "aws", **self._settings.rayxform},
        }
        try:
            check_locations(parse_job(job), self._settings.allowed_prefixes)
        except LocationRefusedError as error:
            raise RequestRefusedError("AccessDeniedException", str(error)) from None
        except JobError as error:
            raise RequestRefusedError.invalid(str(error)) from None
        return job

    def _arn(self, name: str) -> str:
        return self._settings.arn("transform-job", name)


def read_job_file(job_file: str) -> tuple[str, dict[str, Any]]:
    """The name of a job file's job, and its members with absolute locations.

    Raises:
        JobError: it is wrong.
        StorageError: it cannot be read.
    """
    job, origin = read_job(job_file)
    return output_of(job, origin).job_name, to_members(job)
