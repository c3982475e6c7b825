"""What netmsg is measured against, and how: see ``benchmarks/README.md``."""
