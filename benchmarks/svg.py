"""What every plot is drawn with: lines and text as SVG, and a colour for each tool."""

from html import escape
from pathlib import Path

COLOURS = {
    "intaglio": "#0b6e8f",
    "onnxruntime-genai": "#d1495b",
    "llama.cpp": "#8a6d1d",
    "OpenVINO": "#6a4c93",
    "CTranslate2": "#3a7d44",
    "transformers": "#c77d0a",
}
OTHER = "#555555"
STYLE = "font-family='system-ui, sans-serif' font-size='12'"
TITLE = "font-size='15' font-weight='600'"


def line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}'/>"


def text(x: float, y: float, words: str, anchor: str, colour: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='{colour}' {more}>{escape(words)}</text>"


def save(path: Path, width: float, height: float, parts: list[str]) -> None:
    """Write the parts on a white page."""
    size = f"viewBox='0 0 {width:g} {height:g}' width='{width:g}' height='{height:g}'"
    body = "\n".join([f"<rect width='{width:g}' height='{height:g}' fill='white'/>", *parts])
    path.write_text(f"<svg xmlns='http://www.w3.org/2000/svg' {size} {STYLE}>\n{body}\n</svg>\n")
