"""The report as one HTML file that needs nothing else: no network, no fonts, no scripts but its own.

render ─▶ report.html.jinja ─▶ report.css, report.js
   └─▶ pictures, margins, mosaic ─▶ plots ─▶ numerals, visible
   └─▶ words ─▶ numerals
"""

from .render import render

__all__ = ["render"]
