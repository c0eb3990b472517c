"""What the endpoint's owner settles: who may call, what jobs may touch, and what stands for a container image."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from rayxform.errors import ServerSettingsError
from rayxform.spec import read_members
from rayxform.storage.reading import read_text


class ImageRule(msgspec.Struct, rename="pascal", forbid_unknown_fields=True, frozen=True):
    """What runs a model whose container image has such a name: its inference.py, unless one of the others is given.

    Attributes:
        match: the image's name, with * and ? as in file names.
        command: ``Model.Command``: a model server that each worker starts.
        endpoint: ``Model.Endpoint``: a model server that runs already.
    """

    match: str
    command: str | None = None
    endpoint: str | None = None


class ServerSettings(msgspec.Struct, rename="pascal", forbid_unknown_fields=True, frozen=True):
    """The settings file of ``rayxform serve``.

    Attributes:
        keys: secret access keys by access key id; without any, every caller on this machine may call.
        pages_password: what a browser asks for where there are keys; without it, pages are not shown then.
        allowed_prefixes: what jobs may read and write lies below these URLs; "s3://" stands for all buckets.
        images: what stands for container images, the first that matches; AWS's PyTorch images run their inference.py.
        region: the region in ARNs.
        account_id: the account in ARNs.
        max_concurrent_jobs: how many jobs run at a time; the others wait, InProgress, in the order of their creation.
        max_body_bytes: the largest request.
        rayxform: members of ``Rayxform`` for every job.
    """

    keys: dict[str, str] = {}
    pages_password: str | None = None
    allowed_prefixes: tuple[str, ...] = ("s3://",)
    images: tuple[ImageRule, ...] = (ImageRule("*pytorch-inference*"), ImageRule("*pytorch-training*"))
    region: str = "us-east-1"
    account_id: str = "000000000000"
    max_concurrent_jobs: int = 1
    max_body_bytes: int = 1024 * 1024
    rayxform: dict[str, Any] = {}

    def arn(self, kind: str, name: str) -> str:
        """The ARN of a "model" or a "transform-job"."""
        return f"arn:aws:sagemaker:{self.region}:{self.account_id}:{kind}/{name}"

    def image_rule(self, image: str | None) -> ImageRule | None:
        """What stands for an image; a model without one runs its inference.py. None for an image that no rule names."""
        if image is None:
            return ImageRule("")
        return next((rule for rule in self.images if fnmatchcase(image, rule.match)), None)


def read_settings(url: str | None) -> ServerSettings:
    """The settings in a file, JSON or YAML; the defaults where there is none.

    Raises:
        ServerSettingsError: they are wrong; says where and how.
        JobFileError: the file is neither JSON nor YAML.
        StorageError: it cannot be read.
    """
    return make_settings(read_members(read_text(url), url), url) if url is not None else ServerSettings()


def make_settings(members: Mapping[str, Any], origin: str) -> ServerSettings:
    """The settings with these members.

    Raises:
        ServerSettingsError: they are wrong; says where and how.
    """
    try:
        settings = msgspec.convert(dict(members), ServerSettings)
    except msgspec.ValidationError as error:
        raise ServerSettingsError(f"{origin}: {error}; README lists the settings of rayxform serve") from None
    if not (settings.account_id.isascii() and settings.account_id.isdigit() and len(settings.account_id) == 12):
        raise ServerSettingsError(f"{origin}: AccountId is {settings.account_id!r}; write twelve digits, in quotes")
    if settings.max_concurrent_jobs < 1 or settings.max_body_bytes < 1:
        raise ServerSettingsError(f"{origin}: MaxConcurrentJobs and MaxBodyBytes are 1 or more")
    if not settings.allowed_prefixes:
        raise ServerSettingsError(f'{origin}: AllowedPrefixes is empty, so no job could run; write ["s3://bucket/"], say')
    return settings


def check_host(host: str, settings: ServerSettings) -> bool:
    """Whether the server is to listen on this machine alone.

    Raises:
        ServerSettingsError: it is to listen beyond, but anybody could call, and a model is code.
    """
    is_alone = _is_loopback(host)
    if not is_alone and not settings.keys:
        raise ServerSettingsError(
            f"--host {host} can be reached from other machines, and whoever calls runs code here; "
            'set Keys in the settings ({"Keys": {"ACCESS_KEY_ID": "SECRET"}}), or listen on 127.0.0.1'
        )
    return is_alone


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
