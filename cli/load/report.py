"""What ``intaglio bench --serve`` prints."""

from typing import Any

from ..show import print_facts, print_rows

TIMES = {
    "first_token_seconds": "first token",
    "token_gap_seconds": "gap between tokens",
    "per_token_seconds": "mean gap of a request",
    "end_to_end_seconds": "end to end",
}
COLUMNS = ("mean", "p50", "p90", "p99", "max")


def print_figures(document: dict[str, Any]) -> None:
    """Print the figures of a run: facts in lines, times in a table."""
    print_facts(_facts(document))
    print_rows(("ms", *COLUMNS), _rows(document))


def _facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    prompts = document["prompt_tokens"] / max(document["completed"], 1)
    cached = document["cached_tokens"] / max(document["prompt_tokens"], 1)
    facts = [
        ("server", document["server"]),
        ("model", document["model"]),
        ("load", loop(document)),
        ("prompts", f"{prompts:,.0f} tokens on average, {cached:.0%} of them cached"),
        ("answered", f"{document['completed']} of {document['requests']} in {document['seconds']:.1f} s"),
    ]
    if document["errors"]:
        facts.append(("failed", errors(document)))
    if document["output_tokens_per_second"] is not None:
        output, total = document["output_tokens_per_second"], document["total_tokens_per_second"]
        rate = document["requests_per_second"]
        facts.append(("speed", f"{output:,.1f} tokens/s, {total:,.1f} with prompts; {rate:.2f} requests/s"))
    late = document["late_seconds"]
    used = f"{document['client_cpu']:.0%} of a processor"
    facts.append(("generator", used + (f", sent at most {1e3 * late['max']:.1f} ms late" if late else "")))
    return facts


def loop(document: dict[str, Any]) -> str:
    """Return the kind of the load in words."""
    if document["rate"] is not None:
        return f"{document['rate']:g} requests/s at random times"
    return f"{document['clients']} client{'s' * (document['clients'] != 1)}, one request at a time each"


def errors(document: dict[str, Any]) -> str:
    """Return ``3 × 429 (the queue is full), 1 × timeout``."""
    details = document["error_details"]
    return ", ".join(
        f"{count} × {error}" + (f" ({details[error]})" if error in details else "")
        for error, count in document["errors"].items()
    )


def _rows(document: dict[str, Any]) -> list[list[object]]:
    found = {name: document[key] for key, name in TIMES.items() if document[key] is not None}
    return [[name, *(f"{1e3 * values[column]:,.1f}" for column in COLUMNS)] for name, values in found.items()]
