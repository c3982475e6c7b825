"""The Søcket: `smart_socket` is its face, `engine` what is behind it."""
