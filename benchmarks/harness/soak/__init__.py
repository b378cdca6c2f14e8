"""A long run of a server: its clients, and samples of what it holds."""
