"""The verbs that answer requests: ``serve`` over HTTP, ``batch`` from a file."""
