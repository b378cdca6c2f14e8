"""Lists of numbers of tokens on a command line."""

import click


def parse_token_counts(_: click.Context, __: click.Parameter, value: str, most: int | None = None) -> list[int]:
    """Return the numbers, from a text with commas between them; ``most`` is the largest that is allowed.

    Raises:
        click.BadParameter: a part is not a positive number, or is larger than ``most``.
    """
    counts = []
    for part in value.split(","):
        if not part.strip().isdecimal() or int(part) == 0:
            raise click.BadParameter(f"{part.strip()!r} is not a number of tokens; write them like 512,2048.")
        if most is not None and int(part) > most:
            raise click.BadParameter(f"{int(part):,} tokens are more than {most:,}, the most that fit.")
        counts.append(int(part))
    return counts
