"""EasyNetwork's blocking client, reading lines."""

from __future__ import annotations

import socket
from itertools import repeat

from easynetwork.clients import TCPNetworkClient
from easynetwork.protocol import StreamProtocol
from easynetwork.serializers import StringLineSerializer

from .contract import HOST, PACKETS, SINK, SOURCE, Job, Report, main, receive_lines
from .plain_peer import write_lines


def read_packets(job: Job) -> Report:
    with socket.create_server((HOST, job.port)) as listener:
        job.announce(listener.getsockname()[1])
        sock = listener.accept()[0]
    with TCPNetworkClient(sock, StreamProtocol(StringLineSerializer(encoding="utf-8"))) as client:
        recv_packet = client.recv_packet

        def read(count: int) -> None:
            for _ in repeat(None, count):
                recv_packet()

        return receive_lines(read, job)


if __name__ == "__main__":
    main({(SOURCE, PACKETS): write_lines, (SINK, PACKETS): read_packets})
