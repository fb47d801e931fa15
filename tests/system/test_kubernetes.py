"""The manifests of ``examples/kubernetes``: by Kubernetes' own schemas, and what no schema knows.

There is no cluster here.  The rules below are those whose breach would be seen only on one.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from browserkeeper.cli import SUMMARIES, group
from examples.celery_app import app as celery_app
from tests.support.cli import ROOT

PLACE = ROOT / "examples" / "kubernetes"
FILES = yaml.safe_load((PLACE / "kustomization.yaml").read_text())["resources"]
VERSIONS = ("1.29", "1.37")
"""The oldest and the newest Kubernetes whose schemas are asked."""
WITHOUT_SCHEMA = {"PodMonitor"}
"""Kinds of the Prometheus Operator, which Kubernetes itself does not know."""


def document(kind: str) -> dict[str, Any]:
    found = [yaml.safe_load((PLACE / name).read_text()) for name in FILES]
    (only,) = (each for each in found if each["kind"] == kind)
    facts: dict[str, Any] = only
    return facts


@pytest.fixture
def pod() -> dict[str, Any]:
    spec: dict[str, Any] = document("Deployment")["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def worker(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    facts: dict[str, Any] = container
    return facts


def our_commands(*scripts: str) -> list[list[str]]:
    """The words of each call of ``browserkeeper`` in shell scripts, without the program's own name."""
    lines = [line for script in scripts for line in script.splitlines()]
    calls = [shlex.split(line.removesuffix("&")) for line in lines if line.startswith("browserkeeper ")]
    return [words[1:] for words in calls]


def parsed(words: list[str]) -> click.Context:
    """The command line as our own parser takes it; it is not run.  Raises click.UsageError."""
    with click.Context(group) as context:
        command = group.get_command(context, words[0])
        assert command is not None, words
        return command.make_context(words[0], words[1:])


def is_valid(text: str, version: str) -> bool:
    try:
        kubernetes_validate.validate(yaml.safe_load(text), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        print(error)
        return False
    return True


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_each_manifest_fits_the_schema_of_its_kind(name: str, version: str) -> None:
    text = (PLACE / name).read_text()
    if yaml.safe_load(text)["kind"] not in WITHOUT_SCHEMA:
        assert is_valid(text, version)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("readOnlyRootFilesystem: true", "readOnlyRoot: true"),
        ("terminationGracePeriodSeconds: 150", "terminationGracePeriodSeconds: 150s"),
        ("preStop:", "beforeStop:"),
    ],
)
def test_control_the_schema_refuses_a_mistake(right: str, wrong: str) -> None:
    text = (PLACE / "deployment.yaml").read_text()
    assert right in text
    assert not is_valid(text.replace(right, wrong), VERSIONS[-1])


def test_each_file_is_named_in_the_kustomization() -> None:
    assert {path.name for path in PLACE.glob("*.yaml")} == {*FILES, "kustomization.yaml"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kubectl_builds_the_kustomization() -> None:
    done = subprocess.run(["kubectl", "kustomize", PLACE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(list(yaml.safe_load_all(done.stdout))) == len(FILES)


def test_the_pod_meets_the_restricted_security_standard(
    pod: dict[str, Any], worker: dict[str, Any]
) -> None:
    """As https://kubernetes.io/docs/concepts/security/pod-security-standards/ lists it, and a root that
    is read-only, and no token of the cluster's API for pages to steal."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] != 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = worker["securityContext"]
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all(set(volume) == {"name", "emptyDir"} for volume in pod["volumes"])
    assert pod["automountServiceAccountToken"] is False


def test_the_user_is_the_one_of_the_image(pod: dict[str, Any]) -> None:
    dockerfile = (ROOT / "examples" / "docker" / "Dockerfile").read_text()
    assert f"useradd --uid {pod['securityContext']['runAsUser']} " in dockerfile


def test_all_that_has_to_be_written_is_on_a_volume_of_the_pod(
    pod: dict[str, Any], worker: dict[str, Any]
) -> None:
    volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in worker["volumeMounts"]}
    assert len(mounts) == len(volumes)
    assert {"/tmp", "/dev/shm"} <= set(mounts)
    assert mounts["/dev/shm"]["medium"] == "Memory"
    state = Path(document("ConfigMap")["data"]["BROWSERKEEPER_STATE_DIR"])
    # The volume's own directory can be written by all; one that we make in it has mode 0700.
    assert str(state) not in mounts
    assert str(state.parent) in mounts


def test_the_settings_reach_the_container(worker: dict[str, Any]) -> None:
    settings = document("ConfigMap")
    assert worker["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    assert all(isinstance(value, str) for value in settings["data"].values())


def test_the_container_runs_commands_of_this_version(worker: dict[str, Any]) -> None:
    run = parsed([*worker["command"][1:], *worker["args"]])
    assert (worker["command"][0], run.info_name) == ("browserkeeper", "run")
    shell, option, script = worker["args"]
    assert (shell, option) == ("sh", "-c")
    (watch,) = our_commands(script)
    assert parsed(watch).info_name == "watch"
    assert script.splitlines()[-1].startswith("exec celery ")


def test_the_port_of_the_watch_is_the_container_port_that_all_others_name(
    worker: dict[str, Any],
) -> None:
    (port,) = worker["ports"]
    (watch,) = our_commands(worker["args"][2])
    assert parsed(watch).params["listen"] == f"0.0.0.0:{port['containerPort']}"
    (endpoint,) = document("PodMonitor")["spec"]["podMetricsEndpoints"]
    (opened,) = document("NetworkPolicy")["spec"]["ingress"][0]["ports"]
    probes = [worker[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert {endpoint["port"], opened["port"], *(probe["port"] for probe in probes)} == {port["name"]}


def test_the_probes_ask_for_pages_that_the_watch_has(worker: dict[str, Any]) -> None:
    server = (ROOT / "browserkeeper" / "telemetry" / "server.py").read_text()
    paths = {kind: worker[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")}
    assert paths == {"liveness": "/healthz", "readiness": "/readyz"}
    assert all(f'"{path}"' in server for path in paths.values())


def test_before_its_end_a_pod_takes_no_messages_and_then_is_drained(
    pod: dict[str, Any], worker: dict[str, Any]
) -> None:
    script = worker["lifecycle"]["preStop"]["exec"]["command"][2]
    first, _, rest = script.partition("\n")
    app = re.search(r"celery -A (\S+) ", worker["args"][2])
    assert app
    assert first.startswith(f"celery -A {app[1]} control cancel_consumer celery ")
    (words,) = our_commands(rest)
    assert words[0] == "drain"
    if "drain" not in SUMMARIES:
        pytest.skip("`browserkeeper drain` is not there yet")
    drain = parsed(words)
    # The period begins with preStop; then Celery may need its hard limit, and PID 1 its own grace.
    run = parsed([*worker["command"][1:], *worker["args"]])
    longest = drain.params["wait"] + celery_app.app.conf.task_time_limit + run.params["grace"]
    assert longest <= pod["terminationGracePeriodSeconds"]


def test_the_memory_suffices_for_the_browsers_that_the_limit_allows(worker: dict[str, Any]) -> None:
    gib = 1 << 30
    settings = document("ConfigMap")["data"]
    needed = int(settings["BROWSERKEEPER_MAX_BROWSERS"]) * 768 * (1 << 20) + gib
    resources = worker["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert int(resources["limits"]["memory"].removesuffix("Gi")) * gib >= needed


def test_labels_select_the_pods_that_the_deployment_makes() -> None:
    deployment = document("Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    network = document("NetworkPolicy")["spec"]
    others: list[Callable[[], Any]] = [
        lambda: deployment["selector"],
        lambda: document("PodDisruptionBudget")["spec"]["selector"],
        lambda: document("PodMonitor")["spec"]["selector"],
        lambda: network["podSelector"],
    ]
    assert all(other() == {"matchLabels": labels} for other in others)


def test_pages_reach_neither_the_cluster_nor_the_metadata_service() -> None:
    (internet,) = (
        peer["ipBlock"]
        for rule in document("NetworkPolicy")["spec"]["egress"]
        for peer in rule["to"]
        if "ipBlock" in peer
    )
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(internet["except"])


def test_the_alerts_find_the_job_of_the_pod_monitor() -> None:
    (endpoint,) = document("PodMonitor")["spec"]["podMetricsEndpoints"]
    assert {"targetLabel": "job", "replacement": "browserkeeper"} in endpoint["relabelings"]
    assert 'job="browserkeeper"' in (ROOT / "examples" / "grafana" / "alerts.yml").read_text()
