"""Codecs: where a packet begins and ends in a stream of bytes, and what it means. One format a file."""
