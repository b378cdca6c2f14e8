"""Jinja for chat templates: a sandbox whose time and memory are bounded.

``sandbox.render`` is the way in. ``metering`` rewrites a template so that it charges what it does, ``allowances`` lists
what it may call, ``budget`` counts. Importing it loads jinja2.
"""
