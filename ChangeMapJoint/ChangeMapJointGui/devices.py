"""Which GPU there is, without importing torch and without keeping the panel waiting."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress


class GpuProbe:
    """Asks the NVIDIA driver's tool; the answer comes later.

    Whether torch has kernels for that GPU is tried in the worker, which falls back to the CPU.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        tool = shutil.which("nvidia-smi")
        if tool is not None:
            flags = 0
            if sys.platform == "win32":
                flags = subprocess.CREATE_NO_WINDOW
            with suppress(OSError):
                self._process = subprocess.Popen(
                    [tool, "--query-gpu=name", "--format=csv,noheader"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    creationflags=flags,
                )

    def answer(self) -> str | None:
        """Name of the first GPU, empty when there is none, None while the tool still runs."""
        if self._process is None:
            return ""
        if self._process.poll() is None:
            return None
        output, _ = self._process.communicate()
        found = output.splitlines()[:1] if self._process.returncode == 0 else []
        self._process = None
        return found[0].strip() if found else ""

    def close(self) -> None:
        """Do not wait for the answer any longer."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
