"""Many machines: the server as an application of Ray Serve.

    client ─▶ Ray's proxy ─▶ Gateway ─▶ PrefixRouter ─▶ Replica: the same application as ``intaglio serve`` runs

A gateway reads a request whole, so that it can be routed by how its text begins, and sent again where a replica dies.
``build`` makes the application from a declaration. It needs ``pip install 'intaglio[cpu,ray]'``.
"""
