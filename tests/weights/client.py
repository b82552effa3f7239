"""Processes that use plasm: one imports everything with HF_ENDPOINT set, and forks for each piece of code to run.

The Hub's client reads HF_ENDPOINT when it is imported, and an import takes seconds.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLIENT = Path(__file__)


class Job:
    """Code that runs in a process of its own."""

    def __init__(self, pid: int, out: Path) -> None:
        self.pid, self.out = pid, out

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        while Path(f"/proc/{self.pid}").exists():
            time.sleep(0.01)

    def result(self, seconds: float = 90) -> Any:
        """What the code assigned to ``result``.

        Args:
            seconds: Not a measurement: what asks a silent Hub for minutes is to fail rather than hang.

        Raises:
            RuntimeError: "NAME: message" if it raised.
        """
        deadline = time.monotonic() + seconds
        while not self.out.exists():
            assert time.monotonic() < deadline, "the process hangs"
            assert Path(f"/proc/{self.pid}").exists(), "the process died"
            time.sleep(0.01)
        answer = json.loads(self.out.read_text())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]


class Clients:
    """Starts jobs."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.count = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, str(CLIENT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, **environment},
        )  # fmt: skip

    def start(self, code: str, user: int | None = None, largest_file: int | None = None, **environment: str) -> Job:
        self.count += 1
        out = self.folder / f"{self.count}.json"
        order = {"code": code, "out": str(out), "user": user, "largest_file": largest_file, "environment": environment}
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return Job(int(self.process.stdout.readline()), out)

    def run(self, code: str, **kwargs: Any) -> Any:
        return self.start(code, **kwargs).result()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)


def _run(order: dict[str, Any]) -> None:
    out, names = Path(order["out"]), {}  # type: ignore[var-annotated]
    descriptor = os.open(out.parent, os.O_RDONLY)
    os.environ.update(order["environment"])
    if order["user"] is not None:
        os.setgroups([])
        os.setgid(order["user"])
        os.setuid(order["user"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if order["largest_file"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"], limits[1]))
    try:
        exec(order["code"], names)
        answer = {"result": names.get("result")}
    except BaseException as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    beside = f".{out.name}"
    file = os.open(beside, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=descriptor)
    os.write(file, json.dumps(answer).encode())
    os.close(file)
    os.rename(beside, out.name, src_dir_fd=descriptor, dst_dir_fd=descriptor)


def main() -> None:
    import encodings.idna  # noqa: F401  # a job of another user may not be allowed to import more

    import timm  # noqa: F401
    import torch

    import plasm.cli  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                _run(json.loads(line))
            finally:
                os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main()
