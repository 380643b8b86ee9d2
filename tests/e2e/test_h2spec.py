"""HTTP/2 conformance: all that h2spec knows to ask, of the port without and with TLS."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from xml.etree import ElementTree

import pytest
import trustme

from tests.channel.serving import serving
from tests.e2e.build import H2SPEC

pytestmark = pytest.mark.e2e

NOT_OURS = {
    # jh2's HPACK decoder takes both. They are faults of an encoder that say the same whether or not they are taken, so
    # nothing is gained for the walk over every block that finding them would cost.
    ("hpack/4.2", "Sends a dynamic table size update at the end of header block"),
    ("hpack/5.2", "Sends a Huffman-encoded string literal representation padded by zero"),
}
NOT_OURS_ON_A_SHARED_PORT = {
    # What is no preface is HTTP/1.1's to refuse here: it gets a 400 in plain text before the close.
    ("http2/3.5", "Sends invalid connection preface"),
}


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_every_case(tmp_path: Path, secure: bool) -> None:
    tls = None
    if secure:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.set_alpn_protocols(["h2", "http/1.1"])
        trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    report = tmp_path / "report.xml"
    # "/" answers with a text, which some cases need; their strict variants are asked too.
    options: list[str | Path] = ["--strict", "--path", "/", "--timeout", "2", "--junit-report", report]
    async with serving(tls=tls) as served:
        h2spec = await asyncio.create_subprocess_exec(
            H2SPEC.binary,
            *options,
            *(["--tls", "--insecure"] if secure else []),
            "--port",
            str(served.port),
            stdout=asyncio.subprocess.DEVNULL,
        )
        await h2spec.wait()
        await served.until(lambda: not served.server.connections)
    cases = list(ElementTree.parse(report).iter("testcase"))
    assert len(cases) > 140
    assert not [_name(case) for case in cases if case.find("skipped") is not None]
    failed = {_name(case) for case in cases if case.find("error") is not None or case.find("failure") is not None}
    assert failed == NOT_OURS | (set() if secure else NOT_OURS_ON_A_SHARED_PORT)


def _name(case: ElementTree.Element) -> tuple[str, str]:
    return case.attrib["package"], case.attrib["classname"]
