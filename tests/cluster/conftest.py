"""One cluster for the tests of this folder; its nodes find the tests' S3 server where boto3 looks for S3."""

from collections.abc import Iterator

import pytest

from tests.cluster.ray_cluster import RayCluster, ray_cluster
from tests.s3_server import S3Proxy


@pytest.fixture(scope="package")
def cluster(s3_proxy: S3Proxy) -> Iterator[RayCluster]:
    """Three nodes of one CPU each, with a job server."""
    with ray_cluster() as cluster:
        yield cluster
