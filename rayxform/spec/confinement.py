"""What a job may touch: locations below some prefixes and nothing else, for whoever runs jobs of others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from rayxform.errors import LocationRefusedError
from rayxform.spec.job import TransformJob


def check_locations(job: TransformJob, prefixes: Sequence[str]) -> None:
    """Check the locations that a job names; what a manifest names is checked when it is read.

    Args:
        job: the job.
        prefixes: URLs or paths; all that lies below one of them is allowed, and "s3://" stands for every bucket.

    Raises:
        LocationRefusedError: one lies elsewhere; names the member, its value and the prefixes.
    """
    places = [_normal(prefix) for prefix in prefixes]
    for member, location in _locations(job):
        if not _lies_in(location, places):
            raise LocationRefusedError(_refusal(f"{member} is {location!r}", prefixes))


def check_objects(urls: Iterable[str], prefixes: Sequence[str]) -> None:
    """Check the objects that a job would read.

    Raises:
        LocationRefusedError: one lies elsewhere.
    """
    places = [_normal(prefix) for prefix in prefixes]
    for url in urls:
        if not _lies_in(url, places):
            raise LocationRefusedError(_refusal(f"an input is {url!r}", prefixes))


def _lies_in(location: str, places: Sequence[str]) -> bool:
    """Whether a location lies below one of the places, or is one; chained URLs (``simplecache::…``) lie below nothing.

    A place ends where a name ends: ``s3://bucket/a`` takes in ``s3://bucket/a/b`` and not ``s3://bucket/ab``. Paths are
    followed through links and ``..`` first.
    """
    if "::" in location:
        return False
    normal = _normal(location)
    return any(_is_below(normal, place) for place in places)


def _is_below(place: str, prefix: str) -> bool:
    return place == prefix or place.startswith(prefix if prefix.endswith("/") else prefix + "/")


def _normal(location: str) -> str:
    """A URL as it is, for keys of stores have no ``..``; a path, or a file's URL, as the path that it leads to."""
    path = location.removeprefix("file://")
    return path if "://" in path else os.path.realpath(path)


def _locations(job: TransformJob) -> Iterator[tuple[str, str]]:
    capture = job.members.data_capture_config
    named = {
        "TransformInput.DataSource.S3DataSource.S3Uri": job.input_uri,
        "TransformOutput.S3OutputPath": job.output_uri,
        "Model.ModelDataUrl": job.model_data_url,
        "Model.SourceDir": job.source_dir,
        "DataCaptureConfig.DestinationS3Uri": capture.destination_s3_uri if capture is not None else None,
    }
    yield from ((member, location) for member, location in named.items() if location is not None)


def _refusal(what: str, prefixes: Sequence[str]) -> str:
    return f"{what}, but only what lies below {' or '.join(prefixes)} may be read or written"
