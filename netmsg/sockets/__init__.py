"""Raw sockets: names and addresses, opening, listening. No threads but the resolver's, and no waiting."""
