"""The server: artifacts behind OpenAI's HTTP interface, with continuous batching.

    HTTP ─▶ http/ ─▶ endpoints/ ─▶ protocol/ ─▶ engine/ ─▶ the runtime's scheduler
                                         ◀── events ──┘

``create_app(models, settings)`` returns a Starlette application, and ``serve`` runs it with uvicorn. It needs
``pip install 'intaglio[cpu,serve]'``.
"""
