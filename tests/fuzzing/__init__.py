"""Bytes that nobody has meant: what every parser has to bear, from a corpus and what is made of it by mutation."""
