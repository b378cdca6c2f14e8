"""The bodies of the tasks without generation, and what their results become."""
