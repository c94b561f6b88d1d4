"""The manifests: valid to Kubernetes' own schemas, complete, and true to what Tollway needs of a cluster."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tollway.config.settings import VARIABLES, Settings

Document = dict[str, Any]

NEWEST = kubernetes_validate.latest_version()
CUSTOM = {"ServiceMonitor"}
LAST_CHARGES_S = 25
"""What the end of a node may take after its last stream: twice ten seconds for a database that does not answer."""


@pytest.fixture(scope="module")
def folder(deploy: Path) -> Path:
    return deploy / "kubernetes"


@pytest.fixture(scope="module")
def kustomization(folder: Path) -> Document:
    return yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def manifests(folder: Path, kustomization: Document) -> dict[str, Document]:
    """Every resource by `Kind/name`."""
    found: dict[str, Document] = {}
    for name in kustomization["resources"]:
        for document in yaml.safe_load_all((folder / name).read_text(encoding="utf-8")):
            key = f"{document['kind']}/{document['metadata']['name']}"
            assert key not in found
            found[key] = document
    return found


@pytest.fixture(scope="module")
def nodes(manifests: dict[str, Document]) -> Document:
    return manifests["StatefulSet/tollway"]["spec"]


@pytest.fixture(scope="module")
def pod(nodes: Document) -> Document:
    return nodes["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Document) -> Document:
    (only,) = pod["containers"]
    return only


@pytest.fixture(scope="module")
def settings(folder: Path) -> dict[str, str]:
    """The lines of settings.env, out of which kustomize makes the ConfigMap."""
    lines = (folder / "settings.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_kustomization_names_every_file_and_no_other(folder: Path, kustomization: Document) -> None:
    files = {path.name for path in folder.iterdir()} - {"kustomization.yaml"}
    generated = [name for each in kustomization["configMapGenerator"] for name in each["envs"]]
    assert sorted([*kustomization["resources"], *generated]) == sorted(files)


def test_the_kustomization_has_only_fields_that_kustomize_knows(kustomization: Document) -> None:
    """kustomize refuses others; a schema of it is nowhere among the packages."""
    known = {"apiVersion", "kind", "namespace", "resources", "images", "configMapGenerator"}
    assert kustomization.keys() == known
    assert kustomization["apiVersion"] == "kustomize.config.k8s.io/v1beta1"


def test_every_manifest_is_valid(manifests: dict[str, Document]) -> None:
    for name, manifest in manifests.items():
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, NEWEST, strict=True)
            assert "status" not in manifest, name


def test_a_field_that_does_not_exist_would_be_found(manifests: dict[str, Document]) -> None:
    wrong = manifests["PodDisruptionBudget/tollway"]
    wrong = {**wrong, "spec": {**wrong["spec"], "maxUnavailabel": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_everything_a_node_needs_is_there(manifests: dict[str, Document]) -> None:
    assert {name.partition("/")[0] for name in manifests} == {
        *("StatefulSet", "Job", "Service", "Ingress", "HorizontalPodAutoscaler"),
        *("PodDisruptionBudget", "ServiceMonitor"),
    }


def test_images_are_this_version(manifests: dict[str, Document], kustomization: Document, release: str) -> None:
    (image,) = kustomization["images"]
    assert image["newTag"] == release
    pods = [manifests[name]["spec"]["template"]["spec"] for name in ("StatefulSet/tollway", "Job/tollway-migrate")]
    assert [each["image"] for pod in pods for each in pod["containers"]] == [image["name"]] * 2


def test_selectors_choose_the_nodes_and_never_the_migration(manifests: dict[str, Document], nodes: Document) -> None:
    labels = nodes["template"]["metadata"]["labels"]
    spread = [each["labelSelector"]["matchLabels"] for each in nodes["template"]["spec"]["topologySpreadConstraints"]]
    selectors = [
        nodes["selector"]["matchLabels"],
        manifests["PodDisruptionBudget/tollway"]["spec"]["selector"]["matchLabels"],
        manifests["Service/tollway"]["spec"]["selector"],
        manifests["Service/tollway-nodes"]["spec"]["selector"],
        *spread,
    ]
    assert selectors == [labels] * len(selectors)
    assert manifests["Job/tollway-migrate"]["spec"]["template"]["metadata"]["labels"] != labels


def test_the_journal_outlives_its_pod(nodes: Document, container: Document, manifests: dict[str, Document]) -> None:
    (claim,) = nodes["volumeClaimTemplates"]
    assert {"name": claim["metadata"]["name"], "mountPath": "/data"} in container["volumeMounts"]
    assert nodes["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert f"Service/{nodes['serviceName']}" in manifests
    assert manifests["Service/tollway-nodes"]["spec"]["clusterIP"] == "None"


def test_the_end_of_a_pod_leaves_time_for_open_streams(
    pod: Document, container: Document, settings: dict[str, str]
) -> None:
    _, pause = container["lifecycle"]["preStop"]["exec"]["command"]
    shutdown = Settings.from_environ(settings).shutdown_timeout
    assert pod["terminationGracePeriodSeconds"] >= int(pause) + shutdown + LAST_CHARGES_S


def test_probes_ask_what_they_are_for(container: Document) -> None:
    paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": Settings().port}


@pytest.mark.parametrize("name", ["StatefulSet/tollway", "Job/tollway-migrate"])
def test_pods_have_no_privilege(name: str, manifests: dict[str, Document], deploy: Path) -> None:
    pod = manifests[name]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    uid = pod["securityContext"]["runAsUser"]
    assert f"--uid {uid} " in (deploy / "Dockerfile").read_text(encoding="utf-8")
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"].keys() == {"requests", "limits"}


def test_secrets_are_named_and_not_here(manifests: dict[str, Document], folder: Path) -> None:
    named = {"secretRef": {"name": "tollway"}}
    for name in ("StatefulSet/tollway", "Job/tollway-migrate"):
        (container,) = manifests[name]["spec"]["template"]["spec"]["containers"]
        assert named in container["envFrom"]
    assert "Secret" not in {manifest["kind"] for manifest in manifests.values()}


def test_settings_are_ones_that_tollway_has(settings: dict[str, str], kustomization: Document) -> None:
    assert settings.keys() <= {variable.name for variable in VARIABLES if not variable.is_secret}
    assert Settings.from_environ(settings).trusted_proxies
    assert [each["name"] for each in kustomization["configMapGenerator"]] == ["tollway-settings"]


def test_the_volume_has_room_for_the_journal_of_one_process_beside_that_of_a_dead_one(
    nodes: Document, settings: dict[str, str]
) -> None:
    size = nodes["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    assert int(size.removesuffix("Gi")) * 1024 >= 2 * int(settings["JOURNAL_MAX_MB"])


def test_the_ingress_holds_no_stream_back_and_refuses_nothing_that_tollway_takes(
    manifests: dict[str, Document],
) -> None:
    ingress = manifests["Ingress/tollway"]
    notes, defaults = ingress["metadata"]["annotations"], Settings()
    for prefix in ("nginx.ingress.kubernetes.io", "nginx.org"):
        assert notes[f"{prefix}/proxy-buffering"].lower() in ("off", "false")
        assert int(notes[f"{prefix}/proxy-read-timeout"].removesuffix("s")) > defaults.relay_timeout
    for name in ("nginx.ingress.kubernetes.io/proxy-body-size", "nginx.org/client-max-body-size"):
        assert int(notes[name].removesuffix("m")) * 1024 * 1024 == defaults.max_request_bytes
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    service = manifests[f"Service/{path['backend']['service']['name']}"]
    assert path["backend"]["service"]["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]


def test_the_autoscaler_owns_the_number_of_nodes(manifests: dict[str, Document], nodes: Document) -> None:
    spec = manifests["HorizontalPodAutoscaler/tollway"]["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "tollway"}
    assert spec["minReplicas"] >= 2
    assert "replicas" not in nodes


def test_each_node_is_scraped_once_with_the_token(manifests: dict[str, Document]) -> None:
    spec = manifests["ServiceMonitor/tollway"]["spec"]
    chosen = [
        name
        for name, manifest in manifests.items()
        if manifest["kind"] == "Service"
        and spec["selector"]["matchLabels"].items() <= manifest["metadata"]["labels"].items()
    ]
    assert chosen == ["Service/tollway-nodes"]
    service = manifests["Service/tollway-nodes"]
    assert service["metadata"]["labels"][spec["jobLabel"]] == "tollway"
    assert service["spec"]["publishNotReadyAddresses"] is True
    (endpoint,) = spec["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert endpoint["authorization"]["credentials"] == {"name": "tollway", "key": "METRICS_TOKEN"}


def test_the_secret_that_the_readme_makes_has_the_settings_it_should(deploy: Path) -> None:
    text = (deploy / "README.md").read_text(encoding="utf-8")
    made = set(re.findall(r"--from-literal=(\w+)=", text))
    assert made == {"SQL_DSN", "REDIS_CONN_STRING", "CRYPTO_SECRET", "METRICS_TOKEN"}
    assert made <= {variable.name for variable in VARIABLES if variable.is_secret}
