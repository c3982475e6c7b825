"""What outlives the process: files of SQLite, which the standard library brings along."""
