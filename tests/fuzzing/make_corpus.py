"""``python -m fuzzing.make_corpus`` (in ``tests``): the part of the corpus that was thought of.

The other part, under names that are hashes, is what coverage has guided to, and what has failed once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from support.wire_peer import ACK, DATA, DATA_REQ, HEARTBEAT, NACK, capabilities, frame, hello

from netmsg.wire.envelope import FAILURE, REPLY, REQUEST, SUBSCRIBE, UNSUBSCRIBE

from . import file_targets
from .driving import CORPUS
from .inputs import BY_BYTES, written
from .stream_targets import LITTLE_ROOM, SMALL_IS_LARGE
from .websocket_targets import FROM_THE_CLIENT, MASKING_KEY, WE_CLOSE

__all__ = ["made"]

ID: Final = bytes(range(16))
OTHER: Final = bytes(range(16, 32))
IDENTITY: Final = b"who they say: 16"
UNKNOWN: Final = 0x42
EVERY_FRAME: Final = {
    "data": frame(DATA, b"payload"), "empty_data": frame(DATA), "data_req": frame(DATA_REQ, ID + b"payload"),
    "ack": frame(ACK, ID), "heartbeat": frame(HEARTBEAT), "capabilities": capabilities(),
    "old_capabilities": capabilities(features=None), "all_features": capabilities(2**32 - 1, 2**32 - 1, 2**32 - 1),
    "short_capabilities": frame(0x80, b"1234567"), "request": frame(REQUEST, ID + b"?"),
    "reply": frame(REPLY, ID + b"!"), "failure": frame(FAILURE, ID + "weil ä".encode()), "nack": frame(NACK, ID),
    "subscribe": frame(SUBSCRIBE, b"topic"), "subscribe_to_all": frame(SUBSCRIBE),
    "unsubscribe": frame(UNSUBSCRIBE, b"topic"), "unknown": frame(UNKNOWN, b"later"), "second_hello": hello(IDENTITY),
}
WRONG_FRAMES: Final = {
    "empty": bytes(4), "endless": b"\xff\xff\xff\xff\x03", "too_large": frame(DATA, bytes(101)),
    "short_ack": frame(ACK, b"abc"), "long_ack": frame(ACK, bytes(17)), "short_request": frame(REQUEST, ID[:15]),
    "long_reason": frame(FAILURE, ID + bytes(257)), "long_prefix": frame(SUBSCRIBE, bytes(256)),
    "long_heartbeat": frame(HEARTBEAT, b"?"), "unfinished": frame(DATA, b"payload")[:-1],
}
MIXED: Final = b"".join(envelope for name, envelope in EVERY_FRAME.items() if name != "second_hello")


def of_2019(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


OLD_FRAMES: Final = {
    "data": of_2019(b"payload"), "request": of_2019(ID + b"\0REQ\0payload"), "empty_request": of_2019(ID + b"\0REQ\0"),
    "reply": of_2019(ID + b"\0REP\0"), "reply_with_more": of_2019(ID + b"\0REP\0more"),
    "heartbeat": of_2019(b"aiomsg-heartbeat"), "nearly_heartbeat": of_2019(b"aiomsg-heartbeat!"), "empty": of_2019(b""),
    "largest": of_2019(bytes(100)), "too_large": of_2019(bytes(101)),
    "largest_request": of_2019(ID + b"\0REQ\0" + bytes(100)), "endless": b"\xff" * 4,
    "unfinished": of_2019(b"payload")[:-1],
}
GOOD_OLD: Final = b"".join(OLD_FRAMES[name] for name in ("data", "request", "reply", "heartbeat", "reply_with_more"))

Made = Iterator[tuple[str, bytes]]


def envelopes() -> Made:
    for name, envelope in (EVERY_FRAME | WRONG_FRAMES).items():
        yield name, written(envelope)
        yield f"after_{name}", written(frame(DATA, b"1") + envelope + frame(DATA, b"2"), cut=BY_BYTES)
    yield "mixed", written(MIXED, 3, 7)
    yield "mixed_little_room", written(MIXED * 2, LITTLE_ROOM, 9)
    yield "many_runs", written((frame(DATA) + frame(HEARTBEAT)) * 150, 3)
    yield "many_acks", written(b"".join(frame(ACK, bytes(15) + bytes((number,))) for number in range(40)), 3, 4)
    for name, envelope in (("data", frame(DATA, bytes(90))), ("data_req", frame(DATA_REQ, ID + bytes(80))),
                           ("unknown", frame(UNKNOWN, bytes(80))), ("reply", frame(REPLY, ID + bytes(70)))):
        for cut in (BY_BYTES, 5, 6):
            yield f"in_pieces_{name}_{cut}", written(envelope * 2 + frame(DATA, b"!"), SMALL_IS_LARGE, cut)
        yield f"waits_in_pieces_{name}", written(envelope * 3, SMALL_IS_LARGE | LITTLE_ROOM, 12)
    yield "whole_4096", written(frame(DATA, bytes(4096)), 3)


def sessions() -> Made:
    for name, envelope in (EVERY_FRAME | WRONG_FRAMES).items():
        yield name, written(hello(IDENTITY) + envelope + frame(DATA, b"last"), cut=3)
    yield "mixed", written(hello(IDENTITY) + MIXED, 3 | LITTLE_ROOM, 11)
    yield "mixed_by_bytes", written(hello(IDENTITY) + MIXED, 0x20, BY_BYTES)
    yield "large", written(hello(IDENTITY) + frame(DATA, bytes(90)) * 2, SMALL_IS_LARGE | 0x20, BY_BYTES)
    yield "another_version", written(hello(IDENTITY, 2))
    yield "half_a_hello", written(hello(IDENTITY)[:11])
    yield "short_identity", written(hello(IDENTITY[:15]))
    yield "no_hello", written(frame(DATA, b"payload"))
    for name, body in OLD_FRAMES.items():
        yield f"of_2019_{name}", written(of_2019(IDENTITY) + body + of_2019(b"last"), cut=5)
    yield "of_2019_mixed", written(of_2019(IDENTITY) + GOOD_OLD, 0x20 | LITTLE_ROOM, BY_BYTES)
    yield "of_2019_large", written(of_2019(IDENTITY) + of_2019(bytes(90)) * 2, SMALL_IS_LARGE, BY_BYTES)
    yield "websocket", written(request())
    yield "tls", written(CLIENT_HELLO)


def old_frames() -> Made:
    for name, body in OLD_FRAMES.items():
        yield name, written(body)
        yield f"after_{name}", written(of_2019(b"1") + body + of_2019(b"2"), cut=BY_BYTES)
    yield "mixed", written(GOOD_OLD, 3, 7)
    yield "mixed_little_room", written(GOOD_OLD * 2, LITTLE_ROOM, 9)
    yield "in_pieces", written(of_2019(bytes(90)) + of_2019(ID + b"\0REQ\0" + bytes(90)), SMALL_IS_LARGE, BY_BYTES)
    yield "waits_in_pieces", written(of_2019(bytes(90)) * 3, SMALL_IS_LARGE | LITTLE_ROOM, 12)
    yield "least_limit", written(of_2019(b"1") + of_2019(ID + b"\0REQ\0" + b"1") + of_2019(b"12"), 1, 5)


CLIENT_HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(53)
"""How a TLS client begins."""


def sniffing() -> Made:
    yield "version_1", hello(IDENTITY)
    yield "of_2019", of_2019(IDENTITY)
    yield "websocket", request()[:40]
    yield "another_method", b"POST / HTTP/1.1\r\n"
    yield "tls", CLIENT_HELLO
    yield "tls_alert", b"\x15\x03\x03\x00\x02\x02\x46"
    yield "sslv2", b"\x80\x2e\x01\x00\x02"
    yield "data_first", frame(DATA, b"payload")
    yield "hello_of_no_version", struct.pack("!IB", 1, 1)
    yield "short_identity", hello(IDENTITY[:15])
    yield "ssh", b"SSH-2.0-OpenSSH_9.0\r\n"
    yield "nothing", b""
    yield "zeros", bytes(5)


def websocket_frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masks: bool = True, rsv: int = 0,
                    wide: int = 0) -> bytes:
    size = len(payload)
    wide = wide or (0 if size < 126 else 2 if size < 1 << 16 else 8)
    header = bytes((fin << 7 | rsv << 4 | opcode, masks << 7 | {0: size, 2: 126, 8: 127}[wide]))
    header += size.to_bytes(wide, "big") if wide else b""
    key = MASKING_KEY if masks else bytes(4)
    return header + key * masks + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def websocket_frames() -> Made:
    for masks in (True, False):
        end = "client" if masks else "server"

        def one(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, wide: int = 0, _: bool = masks
                ) -> bytes:
            return websocket_frame(opcode, payload, fin=fin, masks=_, rsv=rsv, wide=wide)

        close = one(8, struct.pack("!H", 1000) + b"bye")
        said = {
            "binary": one(2, b"payload") + one(2, b"and more"), "empty": one(2) + one(2, b"1"),
            "fragments": one(2, b"one ", False) + one(0, b"two ", False) + one(0, b"three") + one(2, b"four"),
            "ping_amid_fragments": one(2, b"one ", False) + one(9, b"there?") + one(0, b"two"),
            "pings": one(9, b"1") + one(9, bytes(125)) + one(10, b"unasked"), "text": one(1, b"text"),
            "close": one(2, b"last") + close + one(2, b"too late"), "bare_close": one(8),
            "close_amid_fragments": one(2, b"one", False) + close, "close_1005": one(8, struct.pack("!H", 1005)),
            "close_4000": one(8, struct.pack("!H", 4000)), "close_of_one_byte": one(8, b"\x03"),
            "close_not_text": one(8, b"\x03\xe8\xff"), "reserved": one(2, b"1", rsv=4), "opcode_3": one(3, b"1"),
            "continues_nothing": one(0, b"1"), "new_amid_fragments": one(2, b"1", False) + one(2, b"2"),
            "ping_in_fragments": one(9, b"1", False), "126": one(2, bytes(126)), "wide": one(2, bytes(5), wide=2),
            "very_wide": one(2, bytes(5), wide=8), "long_ping": one(9, bytes(126)), "half": one(2, b"payload")[:-3],
            "header": one(2, bytes(300))[:3], "endless": one(2, b"", wide=8)[:2] + b"\x80" + bytes(7),
            "masked_by_the_other": websocket_frame(2, b"1", masks=not masks),
        }
        for name, data in said.items():
            yield f"{end}_{name}", written(data, masks, 13)
        yield f"{end}_dripping", written(said["fragments"] + said["pings"] + close, masks, BY_BYTES)
        yield f"{end}_closing", written(said["fragments"] + said["pings"] + close, masks | WE_CLOSE, 6)
    yield "client_long", written(websocket_frame(2, bytes(4500)), FROM_THE_CLIENT, 3)


REQUEST_LINES: Final = {
    "Host": "server.example.com", "Upgrade": "websocket", "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": "https://example.org", "Sec-WebSocket-Version": "13"}
ANSWER_LINES: Final = {"Upgrade": "websocket", "Connection": "Upgrade",
                       "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}


def section(first: str, lines: dict[str, str], *more: str) -> bytes:
    return ("\r\n".join([first, *(f"{name}: {value}" for name, value in lines.items()), *more]) + "\r\n\r\n").encode(
        "latin-1")


def request(*more: str, first: str = "GET /chat?a=b HTTP/1.1", **changed: str) -> bytes:
    lines = REQUEST_LINES | {name.replace("_", "-"): value for name, value in changed.items()}
    return section(first, {name: value for name, value in lines.items() if value}, *more)


def answer(*more: str, first: str = "HTTP/1.1 101 Switching Protocols", **changed: str) -> bytes:
    lines = ANSWER_LINES | {name.replace("_", "-"): value for name, value in changed.items()}
    return section(first, {name: value for name, value in lines.items() if value}, *more)


def server_openings() -> Made:
    yield "good", written(request(), cut=4)
    yield "good_dripping", written(request() + b"\x82\x80", cut=BY_BYTES)
    yield "no_page", written(request(Origin=""), cut=9)
    yield "another_page", written(request(Origin="https://example.com"))
    yield "no_host", written(request(Host=""))
    yield "no_key", written(request(**{"Sec-WebSocket-Key": ""}))
    yield "bad_key", written(request(**{"Sec-WebSocket-Key": "AAAA"}))
    yield "two_keys", written(request("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="))
    yield "version_8", written(request(**{"Sec-WebSocket-Version": "8"}))
    yield "no_upgrade", written(request(Upgrade="h2c"))
    yield "post", written(request(first="POST /chat HTTP/1.1"))
    yield "http_1_0", written(request(first="GET / HTTP/1.0"))
    yield "body", written(request("Content-Length: 5") + b"hello")
    yield "no_body", written(request("Content-Length: 0") + b"\x82\x80")
    yield "chunked", written(request("Transfer-Encoding: chunked"))
    yield "folded", written(request(" goes on"))
    yield "blank_before_colon", written(request("X-A : b"))
    yield "lone_newlines", written(request().replace(b"\r\n", b"\n"))
    yield "longest", written(b"".join((request()[:-2], b"X: ", b"y" * (8192 - len(request()) - 5), b"\r\n\r\n")), cut=6)
    yield "too_long", written(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1400, cut=6)
    yield "other_bytes", written(request("X-Name: \xe4\xff"))


def client_openings() -> Made:
    yield "good", written(answer(), cut=4)
    yield "good_dripping", written(answer("Server: x") + b"\x82\x01", cut=BY_BYTES)
    yield "wrong_accept", written(answer(**{"Sec-WebSocket-Accept": "AAAA"}))
    yield "no_accept", written(answer(**{"Sec-WebSocket-Accept": ""}))
    yield "two_accepts", written(answer("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    yield "extension", written(answer("Sec-WebSocket-Extensions: permessage-deflate"))
    yield "protocol", written(answer("Sec-WebSocket-Protocol: chat"))
    yield "something_else", written(answer(Upgrade="h2c, websocket"))
    yield "not_found", written(answer(first="HTTP/1.1 404 Not Found") + b"<html>", cut=5)
    yield "redirect", written(answer("Location: /there", first="HTTP/1.1 302"))
    yield "http_1_0", written(answer(first="HTTP/1.0 101 Switching Protocols"))
    yield "no_reason", written(answer(first="HTTP/1.1 101"))
    yield "no_http", written(hello(IDENTITY), cut=3)
    yield "too_long", written(b"HTTP/1.1 101 \r\n" + b"X: y\r\n" * 1400, cut=6)
    yield "half", written(answer()[:-1])


def line_packets() -> Made:
    for choice in range(6):
        yield f"lines_{choice}", written("one\r\ntwo aa three\n\nä €\n".encode(), choice, 5)
        yield f"long_{choice}", written(b"x" * 30 + b"\n" + b"y" * 30 + b"\r\nshort\naarest", choice, 8)
        yield f"bad_{choice}", written(b"\xff\xfe\n\xc3\ngood\n" * 5, choice, BY_BYTES)
    yield "many_bad", written(b"\xff\n" * 200, 1, 4)
    yield "utf_16", written("one\ntwo\u0a0a\n".encode("utf-16-le"), 5, BY_BYTES)


def delimited_packets() -> Made:
    for choice in range(3):
        yield f"packets_{choice}", written(b"one--two-aab-three\0---aaab", choice, 5)
        yield f"long_{choice}", written(b"x" * 40 + b"--" + b"-" * 9 + b"y" * 21 + b"--z", choice, BY_BYTES)
    yield "many_long", written((b"x" * 21 + b"--") * 80, 0, 6)


def json_packets() -> Made:
    yield "documents", written('{"a":[1,-2.5e3,true,null]}\n"ä\\u00e4"\n[]\n'.encode(), 1, 5)
    yield "pairs", written(rb'"\ud83d\ude00"' + b"\n" + rb'"\ud83d"' + b"\n" + rb'"\ude00\ud83d"' + b"\n", 1)
    yield "no_numbers", written(b"NaN\nInfinity\n-Infinity\n1e999\n" + b"9" * 400 + b"\n", 1, BY_BYTES)
    yield "long_number", written(b"1" * 3900 + b"\n" + b"1" * 3900 + b".0\n", 1)
    yield "deep", written(b"[" * 1900 + b"]" * 1900 + b"\n1\n", 1)
    yield "less_deep", written(b'{"a":' * 90 + b"1" + b"}" * 90 + b"\n", 1)
    yield "bad", written(b'{"a":}\n\n{"a" 1}\n\xff\n"\x01"\n[1,]\n{"a":1,"a":2}\n', 1, 9)
    yield "too_long", written(b'["longer than twenty bytes"]\n1\n', 0, 7)
    yield "crlf", written(b'{}\r\n"x"\r\n', 1)
    yield "byte_order_mark", written(b"\xef\xbb\xbf1\n", 1)


def length_prefixed_packets() -> Made:
    for choice, form in enumerate(("!H", "!I", "!b", "<Q")):
        sound = b"".join(struct.pack(form, size) + bytes(size) for size in (3, 0, 20))
        yield f"packets_{choice}", written(sound, choice, 5)
        yield f"dripping_{choice}", written(sound * 2, choice, BY_BYTES)
        yield f"too_long_{choice}", written(struct.pack(form, 127) + bytes(127) + sound, choice, 6)
        yield f"half_{choice}", written(sound[:-1], choice)
    yield "less_than_none", written(b"\x01a\xffbc", 2)
    yield "endless", written(b"\xff" * 12, 3, BY_BYTES)


def netstring_packets() -> Made:
    for choice in range(2):
        yield f"packets_{choice}", written(b"5:hello,0:,12:hello world!,", choice, 5)
        yield f"too_long_{choice}", written(b"21:" + bytes(21) + b",1:a,", choice, BY_BYTES)
    for name, data in {"leading_zero": b"05:hello,", "no_comma": b"1:a;1:b,", "no_length": b":a,", "signed": b"+1:a,",
                       "many_digits": b"1" * 21, "most_digits": b"9" * 20 + b":", "half": b"5:hel", "blank": b" 1:a,",
                       "other_digits": "٣:abc,".encode()}.items():
        yield name, written(b"1:a," + data, 1, BY_BYTES)


def struct_packets() -> Made:
    for choice in range(4):
        yield f"packets_{choice}", written(bytes(range(64)), choice, 5)
        yield f"dripping_{choice}", written(b"\xff" * 37, choice, BY_BYTES)
    yield "no_number", written(struct.pack("<d?3s", float("nan"), True, b"abc") * 2, 2)


def urls() -> Made:
    for number, url in enumerate((
            "tcp://localhost:5000", "tls://example.org:443", "tcp://[::1]:5000", "tcp://[fe80::1%eth0]:1",
            "unix:///tmp/socket", "unix:@abstract", "unix:@", "unix:///", "unix://relative", "ws://example.org/a?b=c",
            "wss://[::1]:8443/", "ws://example.org", "ws://h/#f", "ws://h/ä", "ws://h?q", "tcp://u@h:1",
            "tcp://h:65536", "tcp://h:٣", "TCP://H:1", "http://h:1", "tcp:h:1", "localhost", "[::1]", "::1",
            "127.0.0.1", "a" * 64, "*", "h:80", "/tmp/x", "tcp://::1:5", "tcp://h\n:1", "a..b", "h.",
            "::ffff:1.2.3.4", "fe80::1%ä")):
        yield f"url_{number:02}", url.encode()
    yield "other_bytes", b"unix:///\xff\xfe"


def unix_paths() -> Made:
    yield from {"path": b"/tmp/socket", "abstract": b"\0name", "nul_inside": b"/tmp/\0x", "longest": b"/" + b"x" * 106,
                "too_long": b"/" + b"x" * 107, "other_bytes": b"/\xff\xfe", "nothing": b"", "only_nul": b"\0"}.items()


def change(at: int, new: bytes) -> bytes:
    return struct.pack("!HB", at, len(new)) + new


def files(sample: file_targets.Sample) -> Made:
    """One page damaged, any of those of one that was closed, and some others; cut off; and what is no such file."""
    for name, kind, content in (("settled", file_targets.SETTLED, sample.settled),
                                ("log", file_targets.LOG, sample.log),
                                ("unsettled", file_targets.UNSETTLED, sample.unsettled)):
        prefix = bytes((kind,))
        yield name, prefix
        for page in range(0, len(content), 512 if kind == file_targets.SETTLED else 2048):
            yield f"{name}_page_{page // 512}", prefix + change(page + 8, b"\xff\xfe" * 8)
        yield f"{name}_cut", prefix + struct.pack("!HB", len(content) // 2 + 100, file_targets.CUT)
        yield f"{name}_gone", prefix + bytes(3)
    for name, at, new in (("magic", 0, b"S"), ("page_size", 16, b"\x04\x00"), ("legacy", 18, b"\1\1"),
                          ("newer", 60, b"\0\0\0\7"), ("kind", 68, b"\0\0\0\7"), ("encoding", 56, b"\0\0\0\2"),
                          ("pages", 28, b"\0\0\0\1"), ("free_pages", 32, b"\0\0\0\3\0\0\0\1")):
        yield f"settled_{name}", bytes((file_targets.SETTLED,)) + change(at, new)
    yield "empty", b"\0"
    yield "text", b"\0" + b"dear diary, " * 50
    yield "only_magic", b"\0SQLite format 3\0"


def outbox_files() -> Made:
    sample = file_targets.outbox_sample()
    yield from files(sample)
    for word in (b"CREATE TABLE anybodys", b"identity", b"epoch", b"fuzzing identity", b"id of 16 bytes 5"):
        at = sample.settled.index(word)
        name = word.decode().replace(" ", "_")
        yield f"settled_{name}", bytes((file_targets.SETTLED,)) + change(at, b"\xff")
        for before in (2, 3, 4):
            yield f"settled_{before}_before_{name}", bytes((file_targets.SETTLED,)) + change(at - before, b"\x01")


def seen_files() -> Made:
    yield from files(file_targets.seen_sample())


MAKERS: Final = (envelopes, old_frames, sessions, sniffing, websocket_frames, server_openings, client_openings,
                 line_packets, delimited_packets, json_packets, length_prefixed_packets, netstring_packets,
                 struct_packets, urls, unix_paths, outbox_files, seen_files)


def made() -> dict[Path, bytes]:
    return {CORPUS / maker.__name__ / name: data for maker in MAKERS for name, data in maker()}


def main() -> None:
    for path, data in made().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
