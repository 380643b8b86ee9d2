from __future__ import annotations

import pytest

from daprfunc.endpoint import Endpoint, parse_endpoint, quoted


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("localhost", Endpoint("localhost", 50001)),
        ("localhost:3500", Endpoint("localhost", 3500)),
        ("dapr_sidecar.ns.svc.:1", Endpoint("dapr_sidecar.ns.svc.", 1)),
        ("http://10.0.0.1", Endpoint("10.0.0.1", 50001)),
        ("http://10.0.0.1:80/", Endpoint("10.0.0.1", 80)),
        ("https://dapr.example", Endpoint("dapr.example", 443, tls=True)),
        ("https://dapr.example:8443", Endpoint("dapr.example", 8443, tls=True)),
        ("dns:dapr.example:1", Endpoint("dapr.example", 1)),
        ("dns://8.8.8.8/dapr.example:1", Endpoint("dapr.example", 1)),
        ("dapr.example:1?tls=true", Endpoint("dapr.example", 1, tls=True)),
        ("dapr.example?tls=true", Endpoint("dapr.example", 443, tls=True)),
        ("dapr.example:1?tls=false", Endpoint("dapr.example", 1)),
        ("[::1]:1", Endpoint("::1", 1)),
        ("http://[0:0::1]", Endpoint("::1", 50001)),
        ("unix:/run/dapr.sock", Endpoint(path="/run/dapr.sock")),
        ("unix:///run/dapr.sock", Endpoint(path="/run/dapr.sock")),
        ("unix:dapr.sock", Endpoint(path="dapr.sock")),
    ],
)
def test_reads_what_daprs_settings_say(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("", "is no gRPC endpoint"),
        ("https://", "is no gRPC endpoint"),
        (":50001", "is no gRPC endpoint"),
        ("[::1", "is no gRPC endpoint"),
        ("[v1.x]:1", "is no gRPC endpoint"),
        ("dapr..example", "is no gRPC endpoint"),
        ("a" * 64 + ":1", "is no gRPC endpoint"),
        ("bücher.example:1", "is no gRPC endpoint"),
        ("dapr example:1", "has white space"),
        ("dapr.example:1\n", "has white space"),
        ("unix:/run/\0", "has white space"),
        ("host:0", "has a port that is no number from 1 to 65535"),
        ("host:65536", "has a port that is no number from 1 to 65535"),
        ("host:port", "has a port that is no number from 1 to 65535"),
        ("::1", "is no gRPC endpoint"),
        ("http://host:1/v1.0", "has a path"),
        ("host:1#x", "has a path"),
        ("ftp://host", "has the scheme 'ftp', which is not supported"),
        ("host:1?tls=yes", "has a query other than tls=true or tls=false"),
        ("host:1?token=x", "has a query other than tls=true or tls=false"),
        ("host:1?tls=true&a=", "has a query other than tls=true or tls=false"),
        ("https://host:1?tls=false", "says tls twice"),
        ("unix:", "names no socket"),
        ("unix://", "names no absolute path"),
        ("unix://relative", "names no absolute path"),
    ],
)
def test_refuses_what_is_no_endpoint_and_says_why(text: str, finding: str) -> None:
    with pytest.raises(ValueError, match="; write ") as raised:
        parse_endpoint(text)
    assert finding in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:passw0rd@host",
        "user:passw0rd@host:1",
        "passw0rd@host",
        "https://user:a/passw0rd@host/path",
        "https://user:a@passw0rd@host",
        "https://user:a\npassw0rd@host",
        "https://host?api_key=passw0rd",
        "ftp://user:passw0rd@host",
        "user:passw0rd://host@other",
    ],
)
def test_no_message_shows_a_password(text: str) -> None:
    with pytest.raises(ValueError, match="; write ") as raised:
        parse_endpoint(text)
    assert "passw0rd" not in str(raised.value)


def test_quotes_an_address_that_is_short_and_on_one_line() -> None:
    assert quoted("https://user:secret@host/a\nb?c=d") == r"'https://***@host/a\nb?***'"
    assert len(quoted("x" * 10_000)) < 250


@pytest.mark.parametrize(
    ("endpoint", "authority", "text"),
    [
        (Endpoint("host", 1), "host:1", "host:1"),
        (Endpoint("::1", 1), "[::1]:1", "[::1]:1"),
        (Endpoint(path="/run/dapr.sock"), "localhost", "unix:/run/dapr.sock"),
    ],
)
def test_names_itself_to_servers_and_to_people(endpoint: Endpoint, authority: str, text: str) -> None:
    assert endpoint.authority == authority
    assert str(endpoint) == text
