"""The manifests of deploy/kubernetes, before a real API server: accepted, and enough for what they are for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.daprd import Daprd
from tests.e2e.kubernetes import Kubernetes
from tests.e2e.secret_requests import Outcome, Request, over_http

pytestmark = [pytest.mark.e2e, pytest.mark.kubernetes, pytest.mark.timeout(180)]

MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"
# kind -> the plural in its path. Those of the second group are not Kubernetes' own.
PLURALS = {
    "ServiceAccount": "serviceaccounts",
    "Deployment": "deployments",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Component": "components",
    "ScaledObject": "scaledobjects",
}
CUSTOM = (("dapr.io", "v1alpha1", "Component"), ("keda.sh", "v1alpha1", "ScaledObject"))
ACCOUNT = "functionapp"


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(MANIFESTS.rglob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            yield f"{file.relative_to(MANIFESTS)}: {document['kind']}", document


DOCUMENTS = dict(documents())


def only(kind: str) -> dict[str, Any]:
    (found,) = [document for document in DOCUMENTS.values() if document["kind"] == kind]
    return found


def collection(manifest: Mapping[str, Any]) -> str:
    """The path to which a resource of the default namespace is posted."""
    version = manifest["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    return f"{root}/namespaces/default/{PLURALS[manifest['kind']]}"


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    """A cluster that knows the kinds of Dapr and KEDA by name, with the Role of the manifests in force."""
    with Kubernetes(tmp_path_factory.mktemp("manifests")) as cluster:
        for group, version, kind in CUSTOM:
            define(cluster, group, version, kind)
        for kind in ("ServiceAccount", "Role", "RoleBinding"):
            cluster.create(collection(only(kind)), only(kind))
        cluster.create_secret("default", "my-secret", {"my-secret": "abcd"})
        cluster.create_secret("default", "functionapp-app-token", {"token": "not for daprd's callers"})
        yield cluster


def define(cluster: Kubernetes, group: str, version: str, kind: str) -> None:
    """A CustomResourceDefinition that takes any content: its own schema is Dapr's or KEDA's business."""
    plural = PLURALS[kind]
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    definition = {
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }
    cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    path = f"/apis/{group}/{version}/namespaces/default/{plural}"
    cluster.processes[-1].wait_until(lambda: cluster.http.get(path).is_success, f"the API of {kind}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_is_accepted(kubernetes: Kubernetes, name: str) -> None:
    manifest = json.loads(json.dumps(DOCUMENTS[name]))
    manifest["metadata"]["name"] += "-tried"  # three of them are there already
    dry_run = {"dryRun": "All", "fieldValidation": "Strict"}
    reply = kubernetes.http.post(collection(manifest), json=manifest, params=dry_run)
    assert reply.status_code == 201, reply.text
    assert "Warning" not in reply.headers, reply.headers["Warning"]


def test_a_wrong_manifest_is_refused(kubernetes: Kubernetes) -> None:
    """Or the test above could not fail."""
    manifest = json.loads(json.dumps(only("Deployment")))
    manifest["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    dry_run = {"dryRun": "All", "fieldValidation": "Strict"}
    reply = kubernetes.http.post(collection(manifest), json=manifest, params=dry_run)
    assert reply.status_code == 400
    assert "livenesProbe" in reply.text


@pytest.fixture(scope="module")
def account(kubernetes: Kubernetes) -> str:
    """The user name of the pod's ServiceAccount, for which a token was issued as for a pod."""
    request = {"spec": {"expirationSeconds": 600}}
    path = f"/api/v1/namespaces/default/serviceaccounts/{ACCOUNT}/token"
    user = f"system:serviceaccount:default:{ACCOUNT}"
    kubernetes.tokens[user] = kubernetes.create(path, request)["status"]["token"]
    return user


@pytest.mark.parametrize(
    ("key", "namespace", "status"),
    [("my-secret", "default", 200), ("functionapp-app-token", "default", 500), ("my-secret", "kube-system", 500)],
)
def test_daprd_reads_what_the_role_allows_and_no_more(
    kubernetes: Kubernetes, account: str, key: str, namespace: str, status: int
) -> None:
    kubeconfig = kubernetes.kubeconfig(account)
    resources = kubeconfig.with_name("component")
    resources.mkdir(exist_ok=True)
    (resources / "component.yaml").write_text((MANIFESTS / "component.yaml").read_text())
    # In a pod daprd finds the API server by itself; here KUBECONFIG says where it is and who daprd is.
    with Daprd(resources=resources, app_id="functionapp", env={"KUBECONFIG": str(kubeconfig)}) as daprd:
        outcome = over_http(daprd.http)(Request("kubernetes", key, Outcome(0), {"namespace": namespace}))
    assert outcome.status == status, outcome
    if status == 200:
        assert outcome.data == {"my-secret": "abcd"}
    else:
        assert outcome.message is not None
        assert "is forbidden" in outcome.message


def test_names_agree() -> None:
    """What one manifest calls by name is what another defines."""
    pod = only("Deployment")["spec"]["template"]
    container = pod["spec"]["containers"][0]
    annotations = pod["metadata"]["annotations"]
    assert pod["spec"]["serviceAccountName"] == only("ServiceAccount")["metadata"]["name"] == ACCOUNT
    assert annotations["dapr.io/app-port"] == str(container["ports"][0]["containerPort"])
    assert only("Component")["scopes"] == [annotations["dapr.io/app-id"]]
    assert only("HorizontalPodAutoscaler")["spec"]["metrics"][0]["containerResource"]["container"] == container["name"]
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        assert only(kind)["spec"]["scaleTargetRef"]["name"] == only("Deployment")["metadata"]["name"]
    selector = only("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= pod["metadata"]["labels"].items()
    assert only("RoleBinding")["roleRef"]["name"] == only("Role")["metadata"]["name"]
    secrets = {item["name"]: item["valueFrom"]["secretKeyRef"] for item in container["env"]}
    assert secrets["APP_API_TOKEN"] == {"name": annotations["dapr.io/app-token-secret"], "key": "token"}
    assert secrets["DAPR_API_TOKEN"] == {"name": annotations["dapr.io/api-token-secret"], "key": "token"}
