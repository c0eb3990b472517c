"""The manifest for KubeRay, against what its fields are; KubeRay itself is not run here."""

import shlex
from pathlib import Path

import pytest
import yaml

from rayxform import cli
from rayxform.spec import load_job

FOLDER = Path(__file__).parents[2] / "jobs" / "kuberay"
DOCUMENTS = {one["kind"]: one for one in yaml.safe_load_all((FOLDER / "rayjob.yaml").read_text())}
SPEC = DOCUMENTS["RayJob"]["spec"]
CLUSTER = SPEC["rayClusterSpec"]
GROUPS = {"head": CLUSTER["headGroupSpec"], **{one["groupName"]: one for one in CLUSTER["workerGroupSpecs"]}}

# The JSON names of the fields that are used, of ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go (KubeRay 1.5).
JOB_FIELDS = {
    "submissionMode": str,
    "entrypoint": str,
    "backoffLimit": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "rayClusterSpec": dict,
}
CLUSTER_FIELDS = {
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": dict,
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
}
GROUP_FIELDS = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": dict,
}


def container_of(group):
    (container,) = GROUPS[group]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize(
    ("found", "fields"), [(SPEC, JOB_FIELDS), (CLUSTER, CLUSTER_FIELDS), *((g, GROUP_FIELDS) for g in GROUPS.values())]
)
def test_every_field_is_one_of_kuberays_and_of_its_type(found, fields):
    assert {name: type(value) for name, value in found.items()} == {name: fields[name] for name in found}


def test_the_head_computes_nothing_and_the_pools_scale():
    assert DOCUMENTS["RayJob"]["apiVersion"] == "ray.io/v1"
    assert SPEC["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    params = GROUPS["head"]["rayStartParams"]
    assert (params["num-cpus"], params["num-gpus"]) == ("0", "0")
    assert all(isinstance(value, str) for group in GROUPS.values() for value in group["rayStartParams"].values())
    assert CLUSTER["enableInTreeAutoscaling"] is True
    assert container_of("gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert GROUPS["gpu"]["minReplicas"] >= 1, "a job is refused where there is nothing for its first worker"
    for name in ("gpu", "spot"):
        group = GROUPS[name]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert "SPOT" not in str(GROUPS["head"])
    assert "SPOT" in str(GROUPS["spot"])


def test_a_lost_head_gives_the_same_command_again():
    assert SPEC["backoffLimit"] > 0
    assert "--restart" not in SPEC["entrypoint"]


def test_the_entrypoint_is_a_command_of_rayxform_and_its_job_file_is_mounted_on_the_head():
    python, option, module, *arguments = shlex.split(SPEC["entrypoint"])
    assert (python, option, module) == ("python", "-m", "rayxform")
    options = cli._parser().parse_args(arguments)
    folder, name = options.job.rsplit("/", 1)
    (mount,) = [one for one in container_of("head")["volumeMounts"] if one["mountPath"] == folder]
    (volume,) = [one for one in GROUPS["head"]["template"]["spec"]["volumes"] if one["name"] == mount["name"]]
    assert volume["configMap"]["name"] == DOCUMENTS["ConfigMap"]["metadata"]["name"]
    job = load_job(DOCUMENTS["ConfigMap"]["data"][name])
    assert all(url.startswith("s3://") for url in (job.input_uri, job.output_uri, job.model_data_url)), "every node sees it"


@pytest.mark.parametrize("group", GROUPS)
def test_every_pod_has_the_same_image_the_cache_and_a_way_into_s3(group):
    container, pod = container_of(group), GROUPS[group]["template"]["spec"]
    assert container["image"] == container_of("head")["image"]
    assert pod["serviceAccountName"] == DOCUMENTS["ServiceAccount"]["metadata"]["name"]
    assert container["envFrom"] == [{"secretRef": {"name": "rayxform-s3", "optional": True}}]
    environment = {one["name"]: one["value"] for one in container["env"]}
    (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == environment["RAYXFORM_CACHE"]]
    (volume,) = [one for one in pod["volumes"] if one["name"] == mount["name"]]
    limit = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 1024**3
    assert float(environment["RAYXFORM_CACHE_MAX_GB"]) * 1e9 < limit, "Kubernetes evicts a pod that is over the volume's limit"


def test_ray_is_of_one_version_everywhere():
    version = CLUSTER["rayVersion"]
    assert f"FROM rayproject/ray:{version}-" in (FOLDER / "Dockerfile").read_text()
    assert all(container_of(group)["image"].endswith(f":{version}") for group in GROUPS)
