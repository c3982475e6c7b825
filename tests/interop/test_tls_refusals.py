"""TLS between netmsg and aiomsg that must not come about, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from support.aiomsg_process import AiomsgProcess
from support.pairs import TIMEOUT, wait_for_event
from support.security import Security, write_certificate

from netmsg import HandshakeFailed, Søcket

pytestmark = pytest.mark.interop


@pytest.fixture
def impostor(tmp_path: Path) -> dict[str, str]:
    """Files of somebody with an authority of his own."""
    return write_certificate(tmp_path, trustme.CA(), "localhost", "127.0.0.1")


def test_an_aiomsg_connector_whose_certificate_we_do_not_trust_is_kept_out(
        impostor: dict[str, str], tls: Security, aiomsg: AiomsgProcess) -> None:
    assert tls.peer_connect is not None
    stranger = {"authority": tls.peer_connect["authority"], "certificate": impostor["certificate"]}
    with Søcket() as binder:
        binder.bind(port=0, ssl_context=tls.bind)
        aiomsg.connect(binder.bound_port, tls=stranger)
        assert "certificate verify failed" in wait_for_event(binder, HandshakeFailed).reason
        friend = aiomsg.connect(binder.bound_port, tls=tls.peer_connect)
        binder.wait_for_peers(timeout=TIMEOUT)
        assert [peer.identity for peer in binder.peers()] == [friend.identity]


def test_an_aiomsg_binder_whose_certificate_we_do_not_trust_gets_no_message(
        impostor: dict[str, str], tls: Security, aiomsg: AiomsgProcess) -> None:
    binder = aiomsg.bind(tls=impostor)
    with Søcket(linger=0) as sender:
        sender.connect(port=binder.port, ssl_context=tls.connect)
        sender.send(b"secret")
        assert "certificate verify failed" in wait_for_event(sender, HandshakeFailed).reason
        assert sender.peers() == [] and sender.stats().queued == 1


def test_an_aiomsg_connector_without_tls_gets_nowhere_on_a_tls_port(tls: Security, aiomsg: AiomsgProcess) -> None:
    with Søcket() as binder:
        binder.bind(port=0, ssl_context=tls.bind)
        aiomsg.connect(binder.bound_port)
        assert "TLS" in wait_for_event(binder, HandshakeFailed).reason
        assert binder.peers() == []


def test_an_aiomsg_connector_with_tls_gets_nowhere_on_a_plain_port(tls: Security, aiomsg: AiomsgProcess) -> None:
    with Søcket() as binder:
        binder.bind(port=0)
        aiomsg.connect(binder.bound_port, tls=tls.peer_connect)
        assert "a TLS client on a plain port" in wait_for_event(binder, HandshakeFailed).reason
        assert binder.peers() == []
