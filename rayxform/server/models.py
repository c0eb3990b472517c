"""CreateModel, DescribeModel, ListModels, DeleteModel. Source: the SageMaker API Reference."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import RowMapping

from rayxform.errors import JobFileError, RequestRefusedError
from rayxform.server.database import MODELS, Database
from rayxform.server.listing import list_page
from rayxform.server.settings import ServerSettings
from rayxform.server.shapes import Members
from rayxform.spec import model_members

_UNSUPPORTED = {
    "Containers": "an inference pipeline; chain jobs instead",
    "InferenceExecutionConfig": "for inference pipelines",
}
_UNSUPPORTED_IN_CONTAINER = {
    "AdditionalModelDataSources": "put everything into one archive",
    "ModelPackageName": "name the package's own ModelDataUrl and Image",
    "MultiModelConfig": "create a model for each",
    "InferenceSpecificationName": "it names a part of a model package",
}


class Models:
    """The models of the endpoint."""

    def __init__(self, database: Database, settings: ServerSettings) -> None:
        """Keep them in the database."""
        self._database = database
        self._settings = settings

    def create(self, members: Members) -> dict[str, Any]:
        """CreateModel.

        Raises:
            RequestRefusedError: the model cannot be run here, or its name is taken.
        """
        self.job_model(members)
        name, kept = members["ModelName"], {key: value for key, value in members.items() if key != "Tags"}
        if not self._database.insert(MODELS, name=name, created_at=time.time(), members=kept):
            raise RequestRefusedError.invalid(f'Cannot create already existing model "{self._arn(name)}".')
        self._database.set_tags(self._arn(name), members.get("Tags", ()))
        return {"ModelArn": self._arn(name)}

    def describe(self, members: Members) -> dict[str, Any]:
        """DescribeModel.

        Raises:
            RequestRefusedError: there is no such model.
        """
        row = self._find(members["ModelName"])
        arn = self._arn(row["name"])
        return {"EnableNetworkIsolation": False, **row["members"], "ModelArn": arn, "CreationTime": row["created_at"]}

    def list(self, members: Members) -> dict[str, Any]:
        """ListModels."""
        return list_page(self._database, MODELS, "Models", self._summary, members)

    def delete(self, members: Members) -> None:
        """DeleteModel; jobs that were created with the model keep what they need of it.

        Raises:
            RequestRefusedError: there is no such model.
        """
        name = members["ModelName"]
        if not self._database.remove(MODELS, name):
            raise self._unknown(name)
        self._database.remove_tags(self._arn(name))

    def of_job(self, name: str) -> dict[str, Any]:
        """The job file's ``Model`` of a model.

        Raises:
            RequestRefusedError: there is no such model, or its image is not known any more.
        """
        return self.job_model(self._find(name)["members"])

    def has(self, name: str) -> bool:
        """Whether there is such a model."""
        return self._database.find(MODELS, name) is not None

    def job_model(self, members: Members) -> dict[str, Any]:
        """The job file's ``Model`` of CreateModel's members.

        Raises:
            RequestRefusedError: it cannot be run here.
        """
        for name, remedy in _UNSUPPORTED.items():
            if members.get(name):
                raise RequestRefusedError.invalid(f"{name} is not supported here: {remedy}")
        container = members.get("PrimaryContainer")
        if container is None:
            raise RequestRefusedError.invalid("PrimaryContainer is missing; it names Image and ModelDataUrl")
        for name, remedy in _UNSUPPORTED_IN_CONTAINER.items():
            if container.get(name):
                raise RequestRefusedError.invalid(f"PrimaryContainer.{name} is not supported here: {remedy}")
        if container.get("Mode") == "MultiModel":
            raise RequestRefusedError.invalid("PrimaryContainer.Mode MultiModel is not supported here: create a model for each")
        return self._by_image(container)

    def _by_image(self, container: Members) -> dict[str, Any]:
        image = container.get("Image")
        rule = self._settings.image_rule(image)
        if rule is None:
            raise RequestRefusedError.invalid(
                f"Image {image} is not known here; add what runs it to Images in the settings of rayxform serve: "
                "a Command or an Endpoint, or nothing where the model is an inference.py"
            )
        variables = {"Environment": container["Environment"]} if container.get("Environment") else {}
        if rule.endpoint is not None:
            return {"Endpoint": rule.endpoint, **variables}
        if rule.command is not None:
            return {"Command": rule.command, **variables}
        try:
            return model_members(container)
        except JobFileError as error:
            raise RequestRefusedError.invalid(str(error)) from None

    def _summary(self, row: RowMapping) -> dict[str, Any]:
        return {"ModelName": row["name"], "ModelArn": self._arn(row["name"]), "CreationTime": row["created_at"]}

    def _find(self, name: str) -> RowMapping:
        row = self._database.find(MODELS, name)
        if row is None:
            raise self._unknown(name)
        return row

    def _unknown(self, name: str) -> RequestRefusedError:
        return RequestRefusedError.invalid(f'Could not find model "{self._arn(name)}".')

    def _arn(self, name: str) -> str:
        return self._settings.arn("model", name)
