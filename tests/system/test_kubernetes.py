"""The manifests of ``examples/kubernetes``: by Kubernetes' own schemas, and what no schema knows.

There is no cluster here.  The rules below are those whose breach would be seen only on one.  The last
test runs the pod's container in Docker, as the manifest says.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from browserkeeper.cli import group
from tests.support.cli import ROOT
from tests.support.docker_rig import Daemon, defaults, environment
from tests.support.waiting import wait_until

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
    # The kubelet runs preStop also before it starts a container again; the drain outlives that.
    assert [parsed(words).info_name for words in our_commands(script)] == ["resume", "watch"]
    assert script.splitlines()[-1].startswith("exec celery ")


def test_the_port_of_the_watch_is_the_container_port_that_all_others_name(
    worker: dict[str, Any],
) -> None:
    (port,) = worker["ports"]
    _, watch = our_commands(worker["args"][2])
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


def time_limit_of_a_task(module: str) -> float:
    """Seconds.  Asked in a process of its own: an app's tasks become those of all later apps."""
    script = f"import {module} as module; print(module.app.conf.task_time_limit)"
    words = [sys.executable, "-c", script]
    return float(subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


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
    drain = parsed(words)
    # The period begins with preStop; then Celery may need its hard limit, and PID 1 its own grace.
    run = parsed([*worker["command"][1:], *worker["args"]])
    longest = drain.params["wait"] + time_limit_of_a_task(app[1]) + run.params["grace"]
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


# ------------------------------------------------------------------ the container, in Docker

GET = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=20).status)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except OSError as error:
    print(error)
"""
TASK = """
from examples.celery_app.app import title
print(title.delay("data:text/html,<title>from the pod</title>").get(timeout=120))
"""
QUEUES = """
from examples.celery_app.app import app
(queues,) = app.control.inspect(timeout=10).active_queues().values()
print([queue["name"] for queue in queues])
"""


def programs(directory: Path) -> Path:
    """The commands that an installation puts on PATH, for this interpreter."""
    directory.mkdir()
    for name in ("browserkeeper", "celery"):
        (directory / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n')
        (directory / name).chmod(0o755)
    return directory


def docker_options(pod: dict[str, Any], worker: dict[str, Any], place: Path) -> dict[str, Any]:
    """The manifest in Docker's words.  An emptyDir is a directory of root's with mode 0777, which
    ``fsGroup`` gives to a group, with the setgid bit."""
    security, own = pod["securityContext"], worker["securityContext"]
    volumes = {}
    for mount in worker["volumeMounts"]:
        if mount["mountPath"] != "/dev/shm":
            directory = place / mount["name"]
            directory.mkdir()
            os.chown(directory, 0, security["fsGroup"])
            directory.chmod(0o2777)
            volumes[str(directory)] = {"bind": mount["mountPath"], "mode": "rw"}
    settings = {**document("ConfigMap")["data"], "EXAMPLE_REDIS": "redis://127.0.0.1:6379/0"}
    memory = worker["resources"]["limits"]["memory"].lower().removesuffix("i")
    return {
        "user": f"{security['runAsUser']}:{security['runAsGroup']}",
        "group_add": [security["fsGroup"]],
        "read_only": own["readOnlyRootFilesystem"],
        "cap_drop": own["capabilities"]["drop"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": memory,
        "memswap_limit": memory,
        "shm_size": "1g",
        "volumes": volumes,
        "environment": settings,
    }


@pytest.mark.chrome
@pytest.mark.redis
@pytest.mark.slow
def test_the_pod_works_is_drained_and_stops_in_a_container(
    docker_daemon: Daemon, pod: dict[str, Any], worker: dict[str, Any], tmp_path: Path
) -> None:
    """With the user, the file systems, the limits and the commands of the manifest, and a Redis in the
    same container, since it has no network."""
    options = docker_options(pod, worker, tmp_path)
    path = programs(tmp_path / "bin")
    options["volumes"] |= {**defaults()["volumes"], str(path): {"bind": str(path), "mode": "ro"}}
    options["environment"] = {**environment(), **options["environment"]}
    options["environment"]["PATH"] = f"{path}:{environment()['PATH']}"
    redis = f"{shutil.which('redis-server')} --save '' --dir /tmp > /dev/null & exec \"$@\""
    with docker_daemon.container(
        "sh", "-c", redis, "sh", *worker["command"], *worker["args"], **options
    ) as container:

        def run(*words: str) -> str:
            status, output = container.exec_run(list(words))
            text: str = output.decode()
            assert status == 0, f"{words}: {text}"
            return text

        def get(page: str) -> str:
            url = f"http://127.0.0.1:{worker['ports'][0]['containerPort']}{page}"
            return run(sys.executable, "-c", GET, url)

        assert wait_until(lambda: get("/readyz") == "200\n", 120, 0.2), container.logs().decode()
        assert get("/healthz") == "200\n"
        assert run(sys.executable, "-c", TASK) == "from the pod\n"
        assert "celery" in run(sys.executable, "-c", QUEUES)
        run(*worker["lifecycle"]["preStop"]["exec"]["command"])
        assert run(sys.executable, "-c", QUEUES) == "[]\n"
        assert wait_until(lambda: get("/readyz").startswith("503"), 60, 0.2)
        assert get("/healthz") == "200\n", "the kubelet must not start a pod again that is drained"
        container.kill("SIGTERM")
        assert container.wait(timeout=120)["StatusCode"] == 0, container.logs().decode()
        container.start()  # as the kubelet does after a failed liveness probe, with the same volumes
        assert wait_until(lambda: get("/readyz") == "200\n", 120, 0.2), container.logs().decode()
