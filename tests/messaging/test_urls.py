"""Where to bind and to connect, as a URL: what may be written, what is meant, and what is said about anything else."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pairs import TIMEOUT, wait_for_event

from netmsg import Retrying, Søcket
from netmsg.messaging.urls import Place, check_hostname, parse_url, url_of


@pytest.mark.parametrize("url, place", [
    ("tcp://127.0.0.1:5000", Place("127.0.0.1", 5000, "", False)),
    ("tcp://[::1]:5000", Place("::1", 5000, "", False)),
    ("tcp://[fe80::1%eth0]:5000", Place("fe80::1%eth0", 5000, "", False)),
    ("tcp://example.org:0", Place("example.org", 0, "", False)),
    ("TCP://my_host-1.example.org.:65535", Place("my_host-1.example.org.", 65535, "", False)),
    ("tcp://bücher.example:1", Place("bücher.example", 1, "", False)),
    ("tls://example.org:443", Place("example.org", 443, "", True)),
    ("unix:///run/a.sock", Place("", 0, "/run/a.sock", False)),
    ("unix:///run/with space/%41?#", Place("", 0, "/run/with space/%41?#", False)),
    ("unix:@name", Place("", 0, "\0name", False)),
    ("unix:@a/b:c", Place("", 0, "\0a/b:c", False)),
])
def test_what_a_url_says(url: str, place: Place) -> None:
    assert parse_url(url) == place


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "[::1]", "fe80::1%eth0", "host:5000", "a b", "/x"])
def test_what_is_no_url_is_told_from_one(name: str) -> None:
    assert parse_url(name) is None


@pytest.mark.parametrize("url, hint", [
    ("tcp://127.0.0.1", "write tcp://host:port"), ("tcp://:5000", "write tcp://host:port"),
    ("tcp://127.0.0.1:", "write tcp://host:port"), ("tcp://127.0.0.1:65536", "from 0 to 65535"),
    ("tcp://127.0.0.1:-1", "write tcp://host:port"), ("tcp://127.0.0.1:٣", "write tcp://host:port"),
    ("tcp://127.0.0.1:" + "9" * 5000, "from 0 to 65535"),
    ("tls://host:5000/", "write tls://host:port"), ("tcp://host:5000/path", "write tcp://host:port"),
    ("tcp://", "write tcp://host:port"), ("tcp://::1:5000", r"tcp://\[address\]:port"),
    ("tls://::1", r"tls://\[address\]:port"), ("tcp://[localhost]:1", r"tcp://\[address\]:port"),
    ("tcp://[::1]", r"tcp://\[address\]:port"), ("tcp://user@host:1", "no host name"), ("tcp://a b:1", "no host name"),
    ("tcp://*:5000", r"bind\(None, port\)"), ("tcp://a..b:1", "no host name"),
    ("udp://127.0.0.1:5000", "tcp://host:port, tls://host:port, unix:///path, unix:@name, ws://host:port/path or "
     "wss://host:port/path"),
    ("http://example.org", "there is no scheme 'http'"), ("://x", "there is no scheme ''"),
    ("unix://relative", "unix:///path"), ("unix:/run/a", "unix:///path"), ("unix:", "unix:@name"),
    ("unix://", "unix:///path"), ("unix:@", "unix:@name"), ("unix:///", "unix:///path"),
    ("unix:///run/", "unix:///path"),
])
def test_a_malformed_url_is_refused_with_the_right_form(url: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        parse_url(url)
    with Søcket() as sock:
        for call in (sock.bind, sock.connect):
            with pytest.raises(ValueError, match=hint):
                call(url)


@pytest.mark.parametrize("host, hint", [
    ("localhost:5000", "'tcp://localhost:5000'"), ("[::1]:5000", r"'tcp://\[::1\]:5000'"),
    ("127.0.0.1:x", "':' in it"), ("tcp:host:5000", "tcp://host:port"), ("a b", "' ' in it"),
    (" localhost", "' ' in it"), ("localhost\n", "in it"),
    ("a/b", "unix:///path"), ("/run/a.sock", "unix:///path"), ("me@host", "'@' in it"), ("*", r"bind\(None, port\)"),
    ("a..b", "1 to 63 characters"), (".", "1 to 63"), ("x" * 64, "1 to 63"), (".".join(["x" * 60] * 5), "253"),
    ("", "empty"), ("\0", "in it"), ("host?", "tcp://host:port"), ("a,b", "','"), ("[localhost]", "in it"),
])
def test_what_is_no_host_name_is_refused_with_a_hint(host: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        check_hostname(host)
    with Søcket() as sock:
        for call in (sock.bind, sock.connect):
            with pytest.raises(ValueError, match=hint):
                call(host, 1)


@pytest.mark.parametrize("host", ["localhost", "a", "xn--bcher-kva.example", "bücher.example", "my_host", "10.0.0.1",
                                  "a.b.", "::", "2001:db8::1", "fe80::1%eth0", "-", "1"])
def test_host_names_and_addresses_pass_as_they_are(host: str) -> None:
    assert check_hostname(host) == host
    assert check_hostname("[::1]") == "::1"


@given(st.text(max_size=30))
def test_any_text_is_a_url_a_host_name_or_a_value_error(text: str) -> None:
    for begin in ("", "tcp://", "tls://", "unix:", "unix://"):
        try:
            place = parse_url(begin + text)
            if place is None:
                assert check_hostname(begin + text)
        except (ValueError, NotImplementedError) as error:
            assert str(error)


@given(st.one_of(st.tuples(st.sampled_from(["127.0.0.1", "::1", "fe80::1%eth0", "example.org"]), st.integers(0, 65535)),
                 st.text(min_size=1).filter(lambda name: not name.endswith("/")).map(lambda name: "/" + name),
                 st.text(min_size=1).map(lambda name: "\0" + name)), st.booleans())
def test_an_address_as_a_url_means_that_address(address: Any, tls: bool) -> None:
    place = parse_url(url_of(address, tls))
    assert place is not None
    if isinstance(address, str):
        assert place.path == address
    else:
        assert (place.host, place.port, place.tls) == (*address, tls)


@pytest.mark.parametrize("url, host, port, tls, resource", [
    ("ws://127.0.0.1:80/x", "127.0.0.1", 80, False, "/x"), ("WS://x:1", "x", 1, False, "/"),
    ("wss://example.org", "example.org", 443, True, "/"), ("ws://[::1]/a/b?c=d", "::1", 80, False, "/a/b?c=d"),
    ("ws://[::1]:8080?q", "::1", 8080, False, "/?q"), ("wss://h:0/%20", "h", 0, True, "/%20"),
])
def test_a_websocket_url_has_a_path_and_perhaps_a_port(url: str, host: str, port: int, tls: bool,
                                                       resource: str) -> None:
    place = parse_url(url)
    assert place == (host, port, "", tls, resource)
    assert parse_url(url_of((host, port), tls, resource)) == place


@pytest.mark.parametrize("url", ["ws://", "ws:///x", "ws://host:/x", "ws://host:1/#there", "ws://host:1/a b",
                                 "ws://me@host:1/", "ws://host:x/", "ws://::1/", "ws://host:1/ü"])
def test_a_malformed_websocket_url_is_refused(url: str) -> None:
    with Søcket() as sock:
        for call in (sock.bind, sock.connect):
            with pytest.raises(ValueError):
                call(url)


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:5000", "unix:///tmp/x", "unix:@x", "tls://localhost:5000"])
@pytest.mark.parametrize("port", [25000, 5000, 0])
def test_a_port_beside_a_url_is_refused(url: str, port: int) -> None:
    with Søcket() as sock:
        for call in (sock.bind, sock.connect):
            with pytest.raises(ValueError, match=f"leave out port {port}"):
                call(url, port)


def test_tls_needs_a_context_to_bind() -> None:
    with Søcket() as sock, pytest.raises(ValueError, match="needs an ssl_context"):
        sock.bind("tls://127.0.0.1:0")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_messages_go_over_tcp_urls(host: str) -> None:
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        assert a.bind(f"tcp://{host}:0") is a
        url = a.bound_urls[0]
        assert url.startswith("tcp://") and parse_url(url) is not None
        assert b.connect(url) is b
        b.send(b"x")
        assert a.recv(timeout=TIMEOUT) == b"x"


def test_messages_go_over_unix_urls(tmp_path: Path) -> None:
    urls = [f"unix://{tmp_path}/a sock%20", f"unix:@netmsg-test-urls-{os.getpid()}"]
    for url in urls:
        with Søcket(linger=0) as a, Søcket(linger=0) as b:
            a.bind(url)
            assert a.bound_urls == [url]
            b.connect(url)
            b.send(b"x")
            assert a.recv(timeout=TIMEOUT) == b"x"


def test_messages_go_over_tls_urls(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = tls_contexts
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind("tls://127.0.0.1:0", ssl_context=server)
        assert a.bound_urls == [f"tls://127.0.0.1:{a.bound_port}"]
        b.connect(a.bound_urls[0], ssl_context=client)
        b.send(b"x")
        assert a.recv(timeout=TIMEOUT) == b"x"
        assert b.peers()[0].tls is not None


def test_a_tls_url_without_a_context_connects_with_the_default_one(
        tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind("tls://localhost:0", ssl_context=tls_contexts[0])
        b.connect(f"tls://localhost:{a.bound_port}")
        event = wait_for_event(b, Retrying)
        assert event.phase == "TLS" and "certificate verify failed" in event.reason  # nobody told it of the authority


def test_bound_urls_are_in_the_order_of_binding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    monkeypatch.chdir(tmp_path)
    with Søcket(linger=0) as sock:
        assert sock.bound_urls == []
        sock.bind("::1", 0).bind(port=0, ssl_context=tls_contexts[0]).bind_unix("relative").bind(None, 0)
        ports = [address[1] if isinstance(address, tuple) else None for address in sock.bound_addresses]
        assert sock.bound_urls == [
            f"tcp://[::1]:{ports[0]}", f"tls://127.0.0.1:{ports[1]}", f"unix://{tmp_path}/relative",
            f"tcp://0.0.0.0:{ports[3]}", f"tcp://[::]:{ports[4]}"]


def test_a_name_that_is_not_known_is_named() -> None:
    with Søcket(linger=0) as sock:
        with pytest.raises(OSError, match="no.such.host.invalid"):
            sock.bind("tcp://no.such.host.invalid:0", timeout=TIMEOUT)
        sock.connect("tcp://no.such.host.invalid:1")
        event = wait_for_event(sock, Retrying)
        assert event.phase == "resolving" and "no.such.host.invalid" in event.reason
        assert event.address == ("no.such.host.invalid", 1)
