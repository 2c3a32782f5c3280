"""The command `fashion-retrieval serve` as a process of its own, and what it takes of the machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Self

from benchmarks.serve.client import LostError, ask, request

_UNIT = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Service:
    """A service on a free port of 127.0.0.1; as a context manager it is ready at the start and has ended at the end."""

    def __init__(self, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        command = [sys.executable, "-m", "fashion_retrieval.cli", "serve", *options, "--port", str(self.port)]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `stop`
        self.process = subprocess.Popen(command, stdout=self._said, stderr=subprocess.STDOUT)

    def wait_ready(self, seconds: float = 180.0) -> None:
        """Wait until /readyz answers 200; a RuntimeError says what the service said if it does not."""
        until, asked = time.monotonic() + seconds, request("GET", "/readyz")
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if ask(self.port, asked).status == 200:
                    return
            except LostError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"the service did not get ready: {self.said()}")

    def said(self) -> str:
        """What it wrote to stdout and stderr."""
        self._said.seek(0)
        return self._said.read().decode(errors="replace")

    def memory_mb(self) -> float:
        """Resident memory, in MiB."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:  # noqa: PTH123  # no file on a disk
            return int(file.read().split()[1]) * _PAGE / 2**20

    def cpu_seconds(self) -> float:
        """Processor time so far, of all its threads."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:  # noqa: PTH123  # as above
            words = file.read().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / _UNIT

    def stop(self, seconds: float = 60.0) -> int:
        """End it by SIGTERM, or kill it where that does not help; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:  # no process may stay behind, whatever happened
            self.process.kill()
            self.process.wait()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._said.close()


class Meter:
    """Processor time of this process, the client's, and of a service, summed over all that runs inside the meter."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._spent = [0.0, 0.0, 0.0]

    def cores(self) -> dict[str, float]:
        """How many cores each took at the mean."""
        wall, client, service = self._spent
        return {"client_cores": round(client / wall, 3), "service_cores": round(service / wall, 3)}

    def __enter__(self) -> Self:
        self._start = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        past = zip(self._spent, self._now(), self._start, strict=True)
        self._spent = [spent + now - start for spent, now, start in past]

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), time.process_time(), self._service.cpu_seconds()
