"""The artifact's session, as each trial needs it: one is open at a time."""

from dataclasses import dataclass
from pathlib import Path

from ...artifact import Manifest
from ...runtime.engine.opening import can_be_windowed, open_session
from ...runtime.engine.session import Device, Session


@dataclass
class Sessions:
    """Sliding layers keep only their window where text is generated, and everything where graphs are called."""

    folder: Path
    manifest: Manifest
    device: Device
    threads: int | None
    _session: Session | None = None

    def get(self, decodes: bool) -> Session:
        """The session for a trial that runs as generation does, or as a graph does."""
        windowed = decodes and can_be_windowed(self.manifest, self.device)
        if self._session is None or self._session.windowed != windowed:
            self.close()
            self._session = open_session(
                self.folder, self.manifest, device=self.device, threads=self.threads, arena=False, windowed=windowed
            )
        return self._session

    def close(self) -> None:
        """Let go of the open session's memory."""
        self._session = None
