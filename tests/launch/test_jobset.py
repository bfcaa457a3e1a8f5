"""The JobSet against the parts of its schema that it uses.

The schema of the custom resource comes with JobSet's release and cannot be had here; this one was written from the
types of jobset.x-k8s.io/v1alpha2 and Kubernetes' batch/v1, and knows no other fields than those used.
"""

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from jaxpose.main import RUN_AGAIN
from jaxpose.train import mesh as meshes

PATH = Path(__file__).parents[2] / "launch" / "jobset.yaml"


def record(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object of just these fields."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def array(items: dict[str, Any], **limits: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1} | limits


TEXT = {"type": "string", "minLength": 1}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
COUNT = {"type": "integer", "minimum": 0}
FIELD = {"type": "string", "pattern": r"^metadata\.(annotations|labels)\['[^']+'\]$"}
ENTRY = {
    "oneOf": [
        record({"name": TEXT, "value": TEXT}),
        record({"name": TEXT, "valueFrom": record({"fieldRef": record({"fieldPath": FIELD})})}),
    ]
}
CONTAINER = record(
    {
        "name": NAME,
        "image": TEXT,
        "command": array(TEXT),
        "args": array(TEXT),
        "env": array(ENTRY),
        "resources": record({"limits": {"type": "object", "additionalProperties": {"type": ["integer", "string"]}}}),
    },
    ports=array(record({"containerPort": {"type": "integer", "minimum": 1, "maximum": 65535}})),
    volumeMounts=array(record({"name": NAME, "mountPath": {"type": "string", "pattern": "^/"}})),
)
VOLUME = {
    "oneOf": [
        record({"name": NAME, "persistentVolumeClaim": record({"claimName": NAME})}),
        record({"name": NAME, "emptyDir": record({"medium": {"const": "Memory"}})}),
    ]
}
POD = record(
    {"restartPolicy": {"const": "Never"}, "containers": array(CONTAINER)},  # Never: what podFailurePolicy asks for
    terminationGracePeriodSeconds=COUNT,
    nodeSelector={"type": "object", "additionalProperties": TEXT},
    volumes=array(VOLUME),
)
ON_EXIT_CODES = record(
    {
        "operator": {"enum": ["In", "NotIn"]},
        "values": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 255}},
    },
    containerName=NAME,
)
JOB = record(
    {"parallelism": COUNT, "completions": COUNT, "template": record({"spec": POD})},
    completionMode={"enum": ["Indexed", "NonIndexed"]},
    backoffLimit=COUNT,
    podFailurePolicy=record(
        {
            "rules": array(
                record({"action": {"enum": ["FailJob", "FailIndex", "Ignore", "Count"]}, "onExitCodes": ON_EXIT_CODES}),
                maxItems=20,
            )
        }
    ),
)
RULE = record(
    {"action": {"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]}},
    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    onJobFailureReasons=array({"enum": ["BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy"]}),
)
SCHEMA = record(
    {
        "apiVersion": {"const": "jobset.x-k8s.io/v1alpha2"},
        "kind": {"const": "JobSet"},
        "metadata": record({"name": NAME}),
        "spec": record(
            {"replicatedJobs": array(record({"name": NAME, "replicas": COUNT, "template": record({"spec": JOB})}))},
            failurePolicy=record({"maxRestarts": COUNT, "rules": array(RULE)}),
        ),
    }
)


@pytest.fixture
def jobset() -> dict[str, Any]:
    return yaml.safe_load(PATH.read_text())


@pytest.fixture
def job(jobset: dict[str, Any]) -> dict[str, Any]:
    (workers,) = jobset["spec"]["replicatedJobs"]
    assert workers["replicas"] == 1, "process 0 is the first pod of the first job: one job holds all"
    return workers["template"]["spec"]


def test_the_jobset_has_the_fields_that_its_types_have(jobset: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(jobset, SCHEMA)


@pytest.mark.parametrize("field", ["restartPolicy", "retries"])
def test_the_schema_rejects_what_kubernetes_would(jobset: dict[str, Any], field: str) -> None:
    wrong = copy.deepcopy(jobset)
    wrong["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][field] = "OnFailure"
    with pytest.raises(jsonschema.ValidationError, match=r"OnFailure|retries"):
        jsonschema.validate(wrong, SCHEMA)


def test_75_and_crashes_start_all_pods_again_and_2_ends_the_jobset(jobset: dict[str, Any], job: dict[str, Any]) -> None:
    # Any pod that fails fails the job, which the JobSet then starts again unless a rule says otherwise.
    assert job["backoffLimit"] == 0
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0
    (rule,) = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["operator"]) == ("FailJob", "In")
    assert rule["onExitCodes"]["values"] == [2]
    assert RUN_AGAIN not in rule["onExitCodes"]["values"]
    (ending,) = jobset["spec"]["failurePolicy"]["rules"]
    assert (ending["action"], ending["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    (container,) = job["template"]["spec"]["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] >= 60


def test_the_pods_find_each_other(jobset: dict[str, Any], job: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of the JobSet, with what Kubernetes puts into them, are those that jaxpose reads."""
    annotations = {
        "jobset.sigs.k8s.io/jobset-name": jobset["metadata"]["name"],
        "jobset.sigs.k8s.io/replicatedjob-name": jobset["spec"]["replicatedJobs"][0]["name"],
    }
    assert job["completionMode"] == "Indexed"
    (container,) = job["template"]["spec"]["containers"]
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    for entry in container["env"]:
        value = entry.get("value")
        if value is None:
            (name,) = re.findall(r"'(.+)'", entry["valueFrom"]["fieldRef"]["fieldPath"])
            value = annotations[name]
        if entry["name"] != "XLA_FLAGS":
            monkeypatch.setenv(entry["name"], value)
    seen: dict[str, object] = {}
    monkeypatch.setattr(meshes.jax.distributed, "initialize", lambda **options: seen.update(options))
    meshes.initialize_processes()
    assert seen["num_processes"] == job["parallelism"] == job["completions"]
    assert seen["process_id"] == 1
    assert seen["coordinator_address"] == f"jaxpose-workers-0-0.jaxpose:{container['ports'][0]['containerPort']}"
