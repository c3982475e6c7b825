"""How to test what one has written: a handler at one end of a pair of streams in memory, the test at the other.

    python3 examples/testing_a_handler.py

There is no port that could be taken, and nothing to wait for.
"""

import argparse
import sys
import threading
import unittest

from netmsg import ByteStream, EndOfStream, LineCodec, PacketClient, memory_stream_pair


def count_words(stream: ByteStream) -> None:
    """The handler: for a `StreamServer`, or for a test."""
    with PacketClient(stream, LineCodec()) as client:
        total = 0
        for line in client:
            total += len(line.split())
            client.send_packet(str(total))
        client.send_packet(f"{total} in all")


class TestCountWords(unittest.TestCase):
    def setUp(self) -> None:
        ours, theirs = memory_stream_pair()
        self.client = PacketClient(ours, LineCodec())
        self.handler = threading.Thread(target=count_words, args=(theirs,))
        self.handler.start()

    def tearDown(self) -> None:
        self.client.send_eof()
        list(self.client)
        self.client.close()
        self.handler.join()

    def test_words_add_up(self) -> None:
        for line, total in (("one", "1"), ("two three", "3"), ("", "3")):
            self.client.send_packet(line)
            self.assertEqual(self.client.recv_packet(timeout=5), total)

    def test_the_sum_comes_at_the_end(self) -> None:
        self.client.send_packet("one two")
        self.client.send_eof()
        self.assertEqual(list(self.client), ["2", "2 in all"])
        with self.assertRaises(EndOfStream):
            self.client.recv_packet(timeout=5)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    unittest.main(testRunner=unittest.TextTestRunner(sys.stdout, verbosity=2))
