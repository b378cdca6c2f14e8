"""Variants that take turns at the same work, each measurement in a process of its own.

    measurements ─▶ rounds ─▶ worker (one process: a section with an engine) ─▶ records ─▶ pages

Peers' own interpreters run the worker, ``engines`` and ``sections`` too: beside the package that runs the model, these
import the standard library and numpy only.
"""
