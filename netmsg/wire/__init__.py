"""The protocol as pure logic: bytes in, events and bytes out. No sockets, no threads, no clock."""
