"""``intaglio bench --serve``: a load on a running server, and its figures."""
