"""AddTags, ListTags, DeleteTags. Source: the SageMaker API Reference."""

from __future__ import annotations

from itertools import islice
from typing import Any

from rayxform.errors import RequestRefusedError
from rayxform.server.database import Database
from rayxform.server.jobs import Jobs
from rayxform.server.models import Models
from rayxform.server.settings import ServerSettings
from rayxform.server.shapes import Members

MAX_TAGS = 50
"""Of one resource (API Reference, AddTags)."""


class Tags:
    """The tags of models and jobs."""

    def __init__(self, database: Database, models: Models, jobs: Jobs, settings: ServerSettings) -> None:
        """Keep them in the database."""
        self._database = database
        self._settings = settings
        self._kinds = {"model": models.has, "transform-job": jobs.has}

    def add(self, members: Members) -> dict[str, Any]:
        """AddTags; a key that is there gets the new value.

        Raises:
            RequestRefusedError: there is no such resource, or it would have too many.
        """
        arn = self._check(members["ResourceArn"])
        count = len(self._database.tags(arn).keys() | {tag["Key"] for tag in members["Tags"]})
        if count > MAX_TAGS:
            raise RequestRefusedError.invalid(f"{count} tags would be more than the {MAX_TAGS} of a resource")
        self._database.set_tags(arn, members["Tags"])
        return {"Tags": members["Tags"]}

    def list(self, members: Members) -> dict[str, Any]:
        """ListTags; a resource has no more tags than the smallest page may hold, so there is one page.

        Raises:
            RequestRefusedError: there is no such resource.
        """
        arn = self._check(members["ResourceArn"])
        if "NextToken" in members:
            raise RequestRefusedError.invalid("NextToken is not one of this list's; it has one page")
        tags = islice(self._database.tags(arn).items(), members.get("MaxResults", MAX_TAGS))
        return {"Tags": [{"Key": key, "Value": value} for key, value in tags]}

    def delete(self, members: Members) -> dict[str, Any]:
        """DeleteTags; keys that are not there do not matter.

        Raises:
            RequestRefusedError: there is no such resource.
        """
        self._database.remove_tags(self._check(members["ResourceArn"]), members["TagKeys"])
        return {}

    def _check(self, arn: str) -> str:
        kind, _, name = arn.split(":", 5)[-1].partition("/")
        if kind not in self._kinds or arn != self._settings.arn(kind, name) or not self._kinds[kind](name):
            raise RequestRefusedError.invalid(f"Could not find a model or a transform job with ARN {arn}")
        return arn
