"""What runtime.py is made of: contenders that take turns at the same work, each in a process of its own.

    contenders ─▶ environments, shelf ─▶ worker (one process: a section, an engine) ─▶ records ─▶ tables, page

``engines`` and ``sections`` are run by the peers' own interpreters too: beside the package that runs the model they
import the standard library and numpy.
"""
