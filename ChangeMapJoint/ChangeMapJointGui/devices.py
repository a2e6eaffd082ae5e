"""Find the GPU's name without importing torch and without blocking the panel."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress


class GpuProbe:
    """Runs the NVIDIA driver's tool in the background.

    Whether torch can use that GPU is found out by the worker, which falls back to the CPU.
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
        """Return the name of the first GPU; empty if there is none, None while the tool is still running."""
        if self._process is None:
            return ""
        if self._process.poll() is None:
            return None
        output, _ = self._process.communicate()
        names = output.splitlines()[:1] if self._process.returncode == 0 else []
        self._process = None
        return names[0].strip() if names else ""

    def close(self) -> None:
        """End the tool if it is still running."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
