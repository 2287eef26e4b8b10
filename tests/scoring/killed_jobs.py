"""Runs `mtlrank score` in forked processes that are stopped at chosen moments: python killed_jobs.py CHUNK_ROWS

Imports once. Each line of stdin is a JSON list of attempts that run at once:
arguments, the command line behind `mtlrank`; signal, what is sent to it, null = it may end;
at, a function of mtl_rank whose call-th call starts the clock, null = the start of the process; delay, seconds;
chunk_rows, null = CHUNK_ROWS.
Answers with a line for each: a JSON list of their exit codes (negative: the signal they died of), seconds, stdout
and stderr.
"""

import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, field
from types import FrameType
from typing import IO, Any

from mtlrank_cli.main import main

import mtl_rank.workflow  # noqa: F401, imported once for all attempts
from mtl_rank.scoring import score


@dataclass
class Attempt:
    arguments: list[str]
    signal: int | None = None
    at: str | None = None
    call: int = 1
    delay: float = 0.0
    chunk_rows: int | None = None
    out: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    err: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    def start(self) -> None:
        self.listens, reached = os.pipe()
        self.began = time.monotonic()
        self.child = os.fork()
        if self.child == 0:
            # What runs in the background of a shell ignores it, and so would its children.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(self.out.fileno(), 1)
            os.dup2(self.err.fileno(), 2)
            code = 70
            try:
                self.run(reached)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            except BaseException:  # noqa: BLE001, nothing may return to the loop of the parent
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        os.close(reached)

    def run(self, reached: int) -> None:
        """The command in this process. When the moment has come it sends the signal to itself, or, if that has a delay,
        writes a byte to `reached`: a parent that is kept waiting would send a signal without delay too late.
        """
        calls = 0
        score.CHUNK_ROWS = self.chunk_rows or score.CHUNK_ROWS

        def watch(frame: FrameType, event: str, _: Any) -> None:
            nonlocal calls
            if event == "call" and frame.f_code.co_name == self.at and "mtl_rank" in frame.f_code.co_filename:
                calls += 1
                if calls != self.call:
                    return
                if self.signal is not None and self.delay == 0:
                    os.kill(os.getpid(), self.signal)
                else:
                    os.write(reached, b"x")

        if self.at is None:
            os.write(reached, b"x")
        else:
            threading.setprofile(watch)
            sys.setprofile(watch)
        sys.argv = ["mtlrank", *self.arguments]
        main()

    def end(self) -> dict[str, Any]:
        # An end of file instead of a byte: the process stopped itself, or ended before the moment came.
        if self.signal is not None and os.read(self.listens, 1):
            time.sleep(self.delay)
            os.kill(self.child, self.signal)
        _, status = os.waitpid(self.child, 0)
        os.close(self.listens)
        seconds = time.monotonic() - self.began
        texts = {}
        for name, file in (("out", self.out), ("err", self.err)):
            file.seek(0)
            texts[name] = file.read().decode()
            file.close()
        return {"code": os.waitstatus_to_exitcode(status), "seconds": seconds, **texts}


if __name__ == "__main__":
    score.CHUNK_ROWS = int(sys.argv[1])
    for line in sys.stdin:
        attempts = [Attempt(**each) for each in json.loads(line)]
        for attempt in attempts:
            attempt.start()
        sys.stdout.write(json.dumps([attempt.end() for attempt in attempts]) + "\n")
        sys.stdout.flush()
