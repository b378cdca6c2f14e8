"""Numbers as text: ``4.2e-6``, ``0.0317``, ``1,923``, ``90.4 %``."""

import math
from datetime import UTC, datetime

SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None) -> str:
    """Return three significant digits, or two and a power of ten below 0.001; ``–`` for None."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "not a number"
    sign, size = (MINUS if value < 0 else ""), abs(value)
    if math.isinf(size):
        return f"{sign}∞"
    if size == 0:
        return "0"
    if size < 0.9995e-3:
        digits, power = f"{size:.1e}".split("e")
        return f"{sign}{digits}e{int(power)}"
    if size < 999.5:
        places = max(0, 2 - math.floor(math.log10(float(f"{size:.2e}"))))
        return f"{sign}{size:.{places}f}"
    return f"{sign}{size:,.0f}" if size < 1e9 else f"{sign}{size:.2e}".replace("e+", "e")


def tick(value: float) -> str:
    """Return a chosen number, such as a limit or a tick of a plot, without trailing zeros."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.6g}".replace("-", MINUS)
    digits, power = f"{abs(value):.3e}".split("e")
    return f"{MINUS if value < 0 else ''}{float(digits):g}e{int(power)}"


def percent(value: float) -> str:
    """Return a chosen share as a percentage without trailing zeros: ``5 %``."""
    return f"{tick(value * 100)}{SPACE}%"


def share(value: float | None) -> str:
    """Return a percentage; ``100 %`` and ``0 %`` only for exactly 1 and 0."""
    if value is None:
        return "–"
    percent = value * 100
    if percent in (0, 100):
        return f"{percent:.0f}{SPACE}%"
    for places in range(1, 8):
        text = f"{percent:.{places}f}"
        if 0 < float(text) < 100:
            return f"{text}{SPACE}%"
    return f"{'<' if percent < 50 else '>'}{SPACE}{0.0000001 if percent < 50 else 99.9999999:.7f}{SPACE}%"


def change(before: float, after: float) -> str:
    """Return the relative change in percent: ``+4.6 %``."""
    percent = (after / before - 1) * 100 if before else math.inf
    if abs(percent) < 0.005:
        return f"±0{SPACE}%"
    text = (
        f"{abs(percent):.2f}" if abs(percent) < 1 else f"{abs(percent):.1f}" if abs(percent) < 100 else number(percent)
    )
    return f"{'+' if percent > 0 else MINUS}{text}{SPACE}%"


def size(count: float) -> str:
    """Return a number of bytes in decimal units."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 0.9995 * 10**power:
            return f"{number(count / 10**power)}{SPACE}{unit}"
    return f"{count:.0f}{SPACE}B"


def parameters(count: int) -> str:
    """Return a number of parameters: ``494 million``, ``32.0 billion``."""
    for unit, power in (("billion", 9), ("million", 6)):
        if count >= 0.9995 * 10**power:
            return f"{number(count / 10**power)}{SPACE}{unit}"
    return f"{count:,}"


def duration(seconds: float) -> str:
    if seconds < 100:
        return f"{number(seconds)}{SPACE}s"
    minutes = round(seconds / 60)
    return f"{minutes}{SPACE}min" if minutes < 100 else f"{minutes // 60}{SPACE}h {minutes % 60}{SPACE}min"


def moment(date: str) -> str:
    """Return an ISO 8601 date as ``2026-03-14 15:09 UTC``; other text is returned unchanged."""
    try:
        return f"{datetime.fromisoformat(date).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return date


def times(ratio: float) -> str:
    """Return a ratio: ``20 ×``, ``20,000 ×``."""
    if not math.isfinite(ratio) or ratio >= 1e9:
        return "beyond measure"
    return f"{number(float(f'{ratio:.2g}'))}{SPACE}×" if ratio < 10 else f"{float(f'{ratio:.2g}'):,.0f}{SPACE}×"
