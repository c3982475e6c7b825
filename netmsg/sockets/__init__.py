"""Raw sockets: names and addresses, binding, listening, waiting. No threads but those that resolve names."""
