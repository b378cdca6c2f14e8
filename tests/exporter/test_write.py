"""An export leaves either a complete artifact or none."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from intaglio.artifact import TEMPLATE_FOLDER, read_manifest, verify
from intaglio.errors import CheckpointError, HubError, OutputError
from intaglio.exporter import export, write
from intaglio.runtime import load
from intaglio.tests import tiny
from intaglio.tests.files.artifact_files import contents, data_of


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "checkpoint", tiny.config("qwen2", num_hidden_layers=1), tokenizer=True)


def left(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in tmp_path.iterdir() if p.name != "checkpoint")


def test_manifest_and_companions(tmp_path: Path, checkpoint: Path) -> None:
    returned = export(checkpoint, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest == returned
    assert set(manifest.files) >= {"onnx/model.onnx", "onnx/model.onnx_data", "config.json", "tokenizer.json"}
    assert set(contents(tmp_path / "out")) == {*manifest.files, "intaglio.json"}
    assert verify(tmp_path / "out") == []
    assert manifest.source.id == "checkpoint"
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["transformers.js_config"]["dtype"] == "fp32"
    assert manifest.parity.verdict == "not checked"


def test_the_chat_templates_with_names_are_copied(tmp_path: Path, checkpoint: Path) -> None:
    folder = checkpoint / TEMPLATE_FOLDER
    folder.mkdir()
    (folder / "rag.jinja").write_text("{{ messages[0].content }}!")
    manifest = export(checkpoint, tmp_path / "out")
    assert f"{TEMPLATE_FOLDER}/rag.jinja" in manifest.files
    assert read_manifest(tmp_path / "out") == manifest
    assert verify(tmp_path / "out") == []
    with load(tmp_path / "out", task="text-generation") as lm:
        assert lm.chat_format.render([{"role": "user", "content": "hi"}], template="rag") == "hi!"
        assert lm.chat([{"role": "user", "content": "hi"}], template="rag", max_new_tokens=1).generation is not None
    (tmp_path / "out" / TEMPLATE_FOLDER / "rag.jinja").write_text("{{ messages[1].content }}!")
    assert verify(tmp_path / "out") == [f"{TEMPLATE_FOLDER}/rag.jinja: its SHA-256 differs from the manifest's"]
    (folder / "a:b.jinja").write_text("x")
    with pytest.raises(CheckpointError, match=r"a:b\.jinja: its name has a \\ or a colon; rename the file$"):
        export(checkpoint, tmp_path / "other")
    assert left(tmp_path) == ["out"]


@pytest.mark.traces_anew
def test_the_same_checkpoint_gives_the_same_bytes(tmp_path: Path, checkpoint: Path) -> None:
    first, second = (export(checkpoint, tmp_path / name) for name in "ab")
    assert first == second


def test_the_digest_follows_the_weights(tmp_path: Path, checkpoint: Path) -> None:
    before = export(checkpoint, tmp_path / "a").source.digest
    other = tiny.write(tmp_path / "other", tiny.config("qwen2", num_hidden_layers=1), seed=1, tokenizer=True)
    assert export(other, tmp_path / "b").source.digest != before


def test_existing_destination(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("kept")
    with pytest.raises(OutputError, match=r"out exists; choose another place, or replace it with --force"):
        export(checkpoint, tmp_path / "out")
    with pytest.raises(OutputError, match=r"out holds something else than an artifact and is not replaced"):
        export(checkpoint, tmp_path / "out", force=True)
    with pytest.raises(OutputError, match=r"checkpoint holds something else than an artifact and is not replaced"):
        export(checkpoint, checkpoint, force=True)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["precious"]
    (tmp_path / "out" / "precious").unlink()
    first = export(checkpoint, tmp_path / "out")  # an empty folder
    with pytest.raises(OutputError, match=r"out exists; choose another place, or replace it with --force"):
        export(checkpoint, tmp_path / "out")
    assert export(checkpoint, tmp_path / "out", force=True, target="standard") != first
    assert read_manifest(tmp_path / "out").target == "standard"
    assert left(tmp_path) == ["out"]


def test_an_empty_folder_stays_one_when_the_export_fails(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "out").mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError):
        export(checkpoint, tmp_path / "out")
    assert left(tmp_path) == ["out"]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("there", ["artifact", "empty folder", "nothing"])
def test_a_link_is_written_through(tmp_path: Path, checkpoint: Path, there: str) -> None:
    folder = tmp_path / "disk" / "model"
    if there == "artifact":
        export(checkpoint, folder, target="standard")
    elif there == "empty folder":
        folder.mkdir(parents=True)
    (tmp_path / "out").symlink_to(Path("disk") / "model")
    if there == "artifact":
        with pytest.raises(OutputError, match=r"out exists; choose another place, or replace it with --force"):
            export(checkpoint, tmp_path / "out")
    export(checkpoint, tmp_path / "out", force=there == "artifact")
    assert (tmp_path / "out").readlink() == Path("disk") / "model"
    assert read_manifest(folder).target == "ort"
    assert verify(tmp_path / "out") == []
    assert left(tmp_path) == ["disk", "out"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_link_in_a_circle_is_refused(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "out").symlink_to("out")
    with pytest.raises(OutputError, match=r"out is a link that leads to itself; remove it, or choose another place"):
        export(checkpoint, tmp_path / "out")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("moment", ["rename", "rmtree"])
def test_an_interruption_while_an_artifact_is_replaced_leaves_nothing_behind(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, moment: str, name: str
) -> None:
    export(checkpoint, tmp_path / "out", target="standard")
    expected = KeyboardInterrupt if name == "SIGINT" else SystemExit
    place: Any = shutil if moment == "rmtree" else Path
    real = getattr(place, moment)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(getattr(signal, name))
        return real(*arguments, **options)

    monkeypatch.setattr(place, moment, interrupted)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with pytest.raises(expected):
            export(checkpoint, tmp_path / "out", force=True)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert read_manifest(tmp_path / "out").target == "ort"
    assert verify(tmp_path / "out") == []
    assert left(tmp_path) == ["out"]


def test_force_replaces_only_after_success(tmp_path: Path, checkpoint: Path) -> None:
    export(checkpoint, tmp_path / "out")
    before = read_manifest(tmp_path / "out")
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a whole safetensors file .*truncated"):
        export(checkpoint, tmp_path / "out", force=True)
    assert read_manifest(tmp_path / "out") == before
    assert verify(tmp_path / "out") == []
    assert left(tmp_path) == ["out"]


def test_destination_is_a_file(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "out").write_text("kept")
    with pytest.raises(OutputError, match="out is a file; an artifact is a folder"):
        export(checkpoint, tmp_path / "out", force=True)
    assert (tmp_path / "out").read_text() == "kept"


def test_destination_under_a_file(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match=r"out cannot be written \(.*\); choose another place"):
        export(checkpoint, tmp_path / "file" / "out")


def test_too_little_space_is_reported_before_writing(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match=r"the artifact needs 0\.3 MB and the disk has 0\.0 MB free"):
        export(checkpoint, tmp_path / "out")
    assert left(tmp_path) == []


def test_disk_full_while_writing(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file on a disk with one free page."""

        def __init__(self, path: Path) -> None:
            self.written = 0

        def write(self, data: memoryview) -> int:
            if self.written:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.written = min(4096, len(data))
            return self.written

        def close(self) -> None: ...

    opened: Callable[..., Any] = Path.open

    def open_full(self: Path, *arguments: Any, **options: Any) -> Any:
        return (
            Full(self) if options == {"buffering": 0} and arguments == ("wb",) else opened(self, *arguments, **options)
        )

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OutputError, match="out: the disk is full; free some space or choose another place"):
        export(checkpoint, tmp_path / "out")
    monkeypatch.undo()
    assert left(tmp_path) == []


@pytest.mark.parametrize("stage", ["graph", "weights", "source"])
def test_interrupt(tmp_path: Path, checkpoint: Path, stage: str) -> None:
    def interrupt(reached: str, done: int, total: int) -> None:
        if reached == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, tmp_path / "out", progress=interrupt)
    assert left(tmp_path) == []


def test_leftovers_of_a_killed_export_are_removed_by_the_next(tmp_path: Path, checkpoint: Path) -> None:
    finished = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    abandoned = tmp_path / f".out.intaglio-{int(finished.stdout)}"
    running = tmp_path / f".out.intaglio-{os.getppid()}"
    for folder in (abandoned, running):
        folder.mkdir()
    export(checkpoint, tmp_path / "out")
    assert not abandoned.exists()
    assert running.exists()  # a running export
    (tmp_path / "out").rename(f"{abandoned}-old")  # killed between the two renamings
    with pytest.raises(OutputError, match="out exists"):
        export(checkpoint, tmp_path / "out")
    assert verify(tmp_path / "out") == []
    assert left(tmp_path) == [running.name, "out"]


def test_created_parent_folders_are_removed_when_the_export_fails(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(HubError):
        export(tmp_path / "nowhere", tmp_path / "a" / "b" / "out")
    assert left(tmp_path) == []
    export(checkpoint, tmp_path / "a" / "b" / "out")
    assert verify(tmp_path / "a" / "b" / "out") == []


def test_the_old_artifact_is_restored_when_replacing_fails(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = export(checkpoint, tmp_path / "out")
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if Path(target).name == "out" and not self.name.endswith("-old"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, tmp_path / "out", target="standard", force=True)
    assert read_manifest(tmp_path / "out") == before
    assert left(tmp_path) == ["out"]


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.3, 1.0, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signal_at_any_moment(tmp_path: Path, checkpoint: Path, name: str, delay: float) -> None:
    command = [
        sys.executable,
        "-m",
        "intaglio.cli.main",
        "export",
        str(checkpoint),
        str(tmp_path / "out"),
        "--no-parity",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(delay)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    if (tmp_path / "out").exists():  # the signal arrived after the last step
        assert verify(tmp_path / "out") == []
        assert left(tmp_path) == ["out"]
    else:
        assert process.returncode in (130, 143, -signal.SIGINT, -signal.SIGTERM)
        assert left(tmp_path) == []


def test_an_error_of_the_writing_thread_is_raised_in_the_other(tmp_path: Path) -> None:
    def write_to_a_closed_file() -> None:
        with write._Writer(tmp_path / "data") as writer:
            writer.file.close()
            for _ in range(1000):
                writer.write(torch.zeros(100))

    with pytest.raises(ValueError, match="closed file"):
        write_to_a_closed_file()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows replaces no file that is open")
def test_a_loaded_model_generates_the_same_while_its_artifact_is_replaced(tmp_path: Path, checkpoint: Path) -> None:
    """Replace it before generation, and in the middle of a stream; the weights are mapped and not copied."""
    out = tmp_path / "out"
    other = tiny.write(tmp_path / "other", tiny.config("qwen2", num_hidden_layers=1), tokenizer=True, seed=9)
    export(checkpoint, out)
    with load(out, task="text-generation") as lm, data_of(out).open("rb") as opened:
        before, old = opened.read(), data_of(out).stat().st_ino
        wanted = lm.generate([5, 6, 7], max_new_tokens=12).token_ids
        stream = lm.stream([5, 6, 7], max_new_tokens=12)
        chunks = [next(stream)]
        export(other, out, force=True)
        assert data_of(out).stat().st_ino != old
        assert data_of(out).read_bytes() != before
        assert lm.generate([5, 6, 7], max_new_tokens=12).token_ids == wanted
        chunks += stream
        assert stream.generation is not None
        assert stream.generation.token_ids == wanted
        assert len(chunks) > 1
        opened.seek(0)
        assert opened.read() == before
    with load(out, task="text-generation") as replaced:
        assert replaced.generate([5, 6, 7], max_new_tokens=12).token_ids != wanted
