"""Who holds a job: a process, told apart from a later process that was given the same id."""

import os
import socket
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

# A process on another host cannot be looked at: it counts as alive for this long after its last commit.
LEASE = timedelta(minutes=30)

LONGEST_PAUSE_FOR_A_JOB = 2.0
"""Seconds between two looks at a job that somebody else holds."""

# Of the host itself; Linux gives it this number always (include/linux/proc_ns.h).
_FIRST_NAMESPACE = 0xEFFFFFFC

_TOKENS_OF_THIS_PROCESS: set[str] = set()


class JobHeld(Exception):
    """Another claim on the job is alive. The message says in one line whose."""


@dataclass(frozen=True)
class Holder:
    """One claim on a job.

    host: whose process numbers `pid` is one of, as `this_host` names it. started: when the process began, in the
    system's own spelling. token: this claim.
    """

    host: str
    pid: int
    started: str
    token: str

    @classmethod
    def here(cls) -> "Holder":
        """A new claim by this process. `let_go` ends it."""
        pid = os.getpid()
        holder = cls(this_host(), pid, started_at(pid) or "", uuid4().hex)
        _TOKENS_OF_THIS_PROCESS.add(holder.token)
        return holder

    def let_go(self) -> None:
        """This process no longer works on the claim, whatever the ledger says."""
        _TOKENS_OF_THIS_PROCESS.discard(self.token)

    def is_alive(self, last_seen: datetime) -> bool:
        """Whether the claim may still be worked on. last_seen: its last commit, in UTC."""
        if self.host != this_host():
            return datetime.now(UTC) - last_seen < LEASE
        if started_at(self.pid) != self.started:
            return False
        return self.pid != os.getpid() or self.token in _TOKENS_OF_THIS_PROCESS

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_host() -> str:
    """The name of this host; in a container with process numbers of its own, which may share the name, these too."""
    name = socket.gethostname()
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return name
    return name if namespace == _FIRST_NAMESPACE else f"{name} (container {namespace})"


def started_at(pid: int) -> str | None:
    """When a process of this host started, in a spelling that is equal for equal moments; None if it is dead."""
    if Path("/proc/self/stat").exists():
        try:
            # The name of the program, in parentheses, may itself contain spaces and parentheses.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, ticks_since_boot = fields[0], fields[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if state in "ZX" else f"{boot}:{ticks_since_boot}"
    listed = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
    )
    state, _, started = listed.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()
