"""A real kube-apiserver on its etcd, on loopback: enough of Kubernetes for Secrets, RBAC and validated manifests."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.e2e.build import ETCD, KUBE_APISERVER
from tests.e2e.daprd import binary
from tests.e2e.processes import Process, answers, free_ports

ADMIN = "admin"


class Kubernetes:
    """etcd and kube-apiserver in `directory`; a context manager that starts them, waits until ready, and stops them.

    Attributes:
        address: the API server's URL.
        http: a client with the rights of a cluster administrator.
        tokens: user -> bearer token; users other than ``admin`` start with no rights at all.
    """

    def __init__(self, directory: Path, users: Sequence[str] = ()) -> None:
        self._directory = directory
        self._etcd_port, self._peer_port, port = free_ports(3)
        self.address = f"https://127.0.0.1:{port}"
        self._port = port
        self.tokens = {user: secrets.token_hex(16) for user in (ADMIN, *users)}
        self.processes: list[Process] = []
        self._http: httpx.Client | None = None

    @property
    def http(self) -> httpx.Client:
        assert self._http, "kube-apiserver was not started"
        return self._http

    @property
    def certificate(self) -> Path:
        """The API server's own certificate: what a client must trust."""
        return self._directory / "certificates" / "apiserver.crt"

    def __enter__(self) -> Kubernetes:
        try:
            self._start_etcd()
            self._start_apiserver()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._http:
            self._http.close()
        for process in reversed(self.processes):
            process.stop()

    def _start_etcd(self) -> None:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        options = {
            "data-dir": self._directory / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "log-level": "warn",
        }
        etcd = Process("etcd", [binary(ETCD, "kube"), "--unsafe-no-fsync", *flags(options)])
        self.processes.append(etcd)
        with httpx.Client(base_url=client, trust_env=False) as http:
            etcd.wait_until(lambda: answers(http, "/health"), "health")

    def _start_apiserver(self) -> None:
        tokens = self._directory / "tokens.csv"
        tokens.touch(mode=0o600)
        groups = {ADMIN: "system:masters"}
        tokens.write_text(
            "".join(f"{token},{user},{user},{groups.get(user, '')}\n" for user, token in self.tokens.items())
        )
        # kube-apiserver makes its certificate and key at start; the same key serves to sign service account tokens,
        # so that no key has to be made, or kept, here.
        key = self.certificate.with_suffix(".key")
        options = {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "bind-address": "127.0.0.1",
            "secure-port": self._port,
            "cert-dir": self.certificate.parent,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            "token-auth-file": tokens,
            "authorization-mode": "RBAC",
            "service-cluster-ip-range": "10.0.0.0/24",
            "disable-admission-plugins": "ServiceAccount",
        }
        apiserver = Process("kube-apiserver", [binary(KUBE_APISERVER, "kube"), *flags(options)])
        self.processes.append(apiserver)
        apiserver.wait_until(self.certificate.exists, "its certificate")
        self._http = self.client(ADMIN)
        apiserver.wait_until(lambda: answers(self.http, "/readyz"), "readiness", seconds=90)
        apiserver.wait_until(lambda: answers(self.http, "/api/v1/namespaces/default"), "the default namespace")

    def client(self, user: str) -> httpx.Client:
        """A client of the API with the rights of `user`."""
        trust = ssl.create_default_context(cafile=str(self.certificate))
        token = {"Authorization": f"Bearer {self.tokens[user]}"}
        return httpx.Client(base_url=self.address, verify=trust, headers=token, timeout=30, trust_env=False)

    def create(self, path: str, resource: Mapping[str, Any]) -> dict[str, Any]:
        """POST `resource` to the collection at `path`; return what was created.

        Raises:
            AssertionError: it was refused; the text is the API server's.
        """
        reply = self.http.post(path, json=resource)
        assert reply.is_success, f"{path}: {reply.status_code} {reply.text}"
        created: dict[str, Any] = reply.json()
        return created

    def create_namespace(self, name: str) -> None:
        self.create("/api/v1/namespaces", {"metadata": {"name": name}})

    def create_secret(self, namespace: str, name: str, values: Mapping[str, str]) -> None:
        """Create an Opaque Secret of these values."""
        self.create(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": name}, "stringData": dict(values)})

    def update_secret(self, namespace: str, name: str, values: Mapping[str, str]) -> None:
        """Set these values of a Secret."""
        path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        kind = {"Content-Type": "application/merge-patch+json"}
        reply = self.http.patch(path, json={"stringData": dict(values)}, headers=kind)
        assert reply.is_success, f"{path}: {reply.status_code} {reply.text}"

    def allow_secrets(self, user: str, namespace: str, verbs: Sequence[str] = ("get",)) -> None:
        """Give `user` a Role for the Secrets of `namespace`, and wait until the API server applies it."""
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        name = f"{user}-reads-secrets"
        rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": list(verbs)}
        self.create(f"{rbac}/roles", {"metadata": {"name": name}, "rules": [rule]})
        group = "rbac.authorization.k8s.io"
        binding = {
            "metadata": {"name": name},
            "subjects": [{"kind": "User", "name": user, "apiGroup": group}],
            "roleRef": {"kind": "Role", "name": name, "apiGroup": group},
        }
        self.create(f"{rbac}/rolebindings", binding)
        attributes = {"namespace": namespace, "resource": "secrets", "verb": verbs[0]}
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        self.processes[-1].wait_until(lambda: self.create(path, review)["status"]["allowed"], f"{name} in {namespace}")

    def kubeconfig(self, user: str) -> Path:
        """Write a kubeconfig with the token of `user`; return its path."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "tests", "cluster": {"server": self.address, "certificate-authority": str(self.certificate)}}
            ],
            "users": [{"name": user, "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": user, "context": {"cluster": "tests", "user": user}}],
            "current-context": user,
        }
        file = self._directory / f"{user}.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(config))
        return file


def flags(options: Mapping[str, object]) -> list[str]:
    """Options as ``--name=value``."""
    return [f"--{name}={value}" for name, value in options.items()]
