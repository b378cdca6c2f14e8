"""The artifact's session for each case; one is open at a time."""

from dataclasses import dataclass
from pathlib import Path

from ...artifact import Manifest
from ...runtime.engine.opening import can_be_windowed, open_session
from ...runtime.engine.session import Device, Session


@dataclass
class Sessions:
    """Sessions with windowed sliding layers for cases that generate text, and with full KV caches for graph calls."""

    folder: Path
    manifest: Manifest
    device: Device
    threads: int | None
    _session: Session | None = None

    def get(self, decodes: bool) -> Session:
        """Return the session for a case that decodes, or for one that calls the graph; the other is closed."""
        windowed = decodes and can_be_windowed(self.manifest, self.device)
        if self._session is None or self._session.windowed != windowed:
            self.close()
            self._session = open_session(
                self.folder, self.manifest, device=self.device, threads=self.threads, arena=False, windowed=windowed
            )
        return self._session

    def close(self) -> None:
        """Release the open session's memory."""
        self._session = None
