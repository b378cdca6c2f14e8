"""Try the server with each client, over every feature, and write what becomes of it into docs/clients.md."""
