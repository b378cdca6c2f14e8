"""The scratch folder of the benchmarks: artifacts, each made once and kept.

    DIR/artifacts/NAME            the model that a variant's command or options made
    DIR/variants/NAME.json, .log  its options, time and memory; the output of the tool that made it

An artifact is made anew when its variant's options change. Time and peak memory are those of the whole process,
interpreter and imports included.
"""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from .environments import process_environment
from .variants import ALL, Variant

MAKER = f"{__package__}.export_variant"


def made_as(variant: Variant) -> Variant:
    """Return the variant whose artifact a variant runs."""
    return ALL[variant.artifact] if variant.artifact else variant


@dataclass(frozen=True)
class ArtifactStore:
    """Artifacts of one checkpoint; ``finished`` maps names of variants to artifacts elsewhere, used as they are."""

    scratch: Path
    checkpoint: Path
    gguf: str | None = None
    finished: Mapping[str, Path] = field(default_factory=dict)

    def path(self, variant: Variant) -> Path:
        """Return where the variant's artifact is or will be."""
        variant = made_as(variant)
        own = self.scratch / "artifacts" / variant.out.format(name=variant.name)
        return self.finished.get(variant.name) or own.absolute()

    def making(self, variant: Variant) -> dict[str, Any]:
        """Return the ``seconds`` and the ``peak`` memory in MB of the making; empty if nothing was made here."""
        return dict(self._note(variant).get("making", {}))

    def make(self, variant: Variant, python: str) -> None:
        """Make the artifact, unless it exists and was made with the same options.

        Raises:
            click.ClickException: the tool failed; with the end of what it printed.
        """
        if variant.name in self.finished or (variant.artifact and self.path(variant).exists()):
            return
        if variant.artifact:
            raise click.ClickException(f"there is no {self.path(variant)}; measure {variant.artifact} too")
        recipe = json.loads(json.dumps({"options": variant.options, "command": variant.command, "out": variant.out}))
        out, note = self.path(variant), self._file(variant)
        if out.exists() and self._note(variant).get("recipe") == recipe:
            return
        command = [python, *self._command(variant, out)]
        click.echo(f"{variant.name}: making it")
        for folder in (out.parent, note.parent):
            folder.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        begin = time.perf_counter()
        with note.with_suffix(".log").open("w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=process_environment())
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)  # Popen warns of a process that it did not wait for
            if status != 0:
                log.seek(0)
                raise click.ClickException(f"{variant.name} could not be made:\n{log.read()[-3000:]}")
        making = {"seconds": time.perf_counter() - begin, "peak": usage.ru_maxrss * 1024 / 1e6, "command": command[1:]}
        note.write_text(json.dumps({"recipe": recipe, "making": making}, indent=1) + "\n")

    def make_all(self, variants: list[Variant], pythons: Mapping[str, str]) -> tuple[list[Variant], list[str]]:
        """Make the artifacts; return the variants that have one, and the failures in words."""
        made, failures = [], []
        for variant in sorted(variants, key=lambda one: bool(one.artifact)):
            try:
                self.make(variant, pythons[variant.tool])
                made.append(variant)
            except click.ClickException as error:
                failures.append(f"{variant.name} is left out: {error.message}")
        return [variant for variant in variants if variant in made], failures

    def _command(self, variant: Variant, out: Path) -> list[str]:
        if not variant.command:
            return ["-m", MAKER, str(self.checkpoint), str(out), json.dumps(variant.options)]
        if "{gguf}" in variant.command and self.gguf is None:
            raise click.ClickException(
                f"{variant.name}: llama.cpp reads a GGUF file; name the unquantized one with --gguf"
            )
        values = {"source": self.checkpoint, "gguf": self.gguf, "out": out}
        return [part.format(**values) for part in variant.command]

    def _file(self, variant: Variant) -> Path:
        return self.scratch / "variants" / f"{variant.name}.json"

    def _note(self, variant: Variant) -> dict[str, Any]:
        file = self._file(variant)
        return dict(json.loads(file.read_text())) if file.is_file() else {}
