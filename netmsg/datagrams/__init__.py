"""Blocking datagram sockets."""
