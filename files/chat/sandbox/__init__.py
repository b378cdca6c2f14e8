"""Jinja for chat templates: a sandbox with bounded time and memory.

``sandbox.render`` is the entry point. ``metering`` rewrites a template so that it charges its work to a budget,
``allowances`` lists what it may call, and ``budget`` counts. Importing ``sandbox.sandbox`` imports jinja2.
"""
