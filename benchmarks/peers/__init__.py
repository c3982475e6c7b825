"""One file for each library that is measured, all to the contract of `benchmarks.peers.contract`."""
