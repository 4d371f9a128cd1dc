"""What only some systems have, with what stands in for it on the others.

The project is run on Linux. What stands in on macOS and Windows is checked by types, and on Linux with Linux's own
calls taken away; it was never run there.
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

MIB = 2**20
# What file systems answer that cannot sync a folder (SMB, some FUSE), or let it be opened for that.
UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR)
UNRESERVED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # that cannot reserve room


def cores() -> int:
    """How many cores this process may run on; where the system does not say, how many there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def proc(name: str) -> str | None:
    """A file of Linux's /proc, None where there is no such."""
    try:
        return Path("/proc", name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def processor() -> tuple[str, list[str]]:
    """The processor's name, and what it can do as Linux lists it: [] elsewhere."""
    name, flags = platform.processor() or platform.machine(), list[str]()
    for line in (proc("cpuinfo") or "").split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = value.split()
    return name, flags


def resident_bytes() -> int:
    """Memory that this process holds; on macOS, the most that it has held."""
    if sys.platform == "win32":
        return _windows_resident()
    if words := proc("self/statm"):
        return int(words.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _windows_resident() -> int:
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):  # PROCESS_MEMORY_COUNTERS of psapi.h
        _fields_ = [
            ("size", wintypes.DWORD),
            ("faults", wintypes.DWORD),
            *((name, ctypes.c_size_t) for name in ("peak", "resident", "a", "b", "c", "d", "e", "f")),
        ]

    counters = Counters(size=ctypes.sizeof(Counters))
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    kernel.K32GetProcessMemoryInfo.argtypes = [wintypes.HANDLE, ctypes.POINTER(Counters), wintypes.DWORD]
    kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.size)
    return counters.resident


def available_bytes() -> int | None:
    """Memory that programs may still take, None where the system does not say."""
    rows = dict(line.partition(":")[::2] for line in (proc("meminfo") or "").splitlines())
    found = rows.get("MemAvailable", "").split()
    return int(found[0]) * 1024 if found else None


def reserve(path: Path) -> None:
    """Have the disk hold all of a file that may be sparse. OSError, not a later crash in its memory map, where it is
    full."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        if sys.platform == "linux" and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                return
            except OSError as error:
                if error.errno not in UNRESERVED:
                    raise
        for start in range(0, size, MIB):  # written anew, as it is
            file.seek(start)
            data = file.read(MIB)
            file.seek(start)
            file.write(data)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder last through a power cut, where the file system can."""
    if sys.platform == "win32":
        return  # a folder cannot be opened there
    try:
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise


def allow_many_files() -> None:
    """Let this process open 4096 files where it may: encoded shards are mapped, and macOS allows 256 unasked."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
        if 0 <= soft < wanted:
            with suppress(OSError, ValueError):  # a system with a limit of its own
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def cache_folder(kind: str) -> Path:
    """Where caches of a kind are kept; any may be deleted. RuntimeError where there is no such place."""
    if named := os.environ.get("GAME_WM_CACHE"):
        return Path(named) / kind
    try:
        return Path.home() / ".cache" / "game_wm" / kind
    except RuntimeError:
        raise RuntimeError("no home folder to keep caches in: set GAME_WM_CACHE to a folder") from None


def file_limit() -> int:
    """How many files this process may have open at once; on Windows, of those that C's library opens."""
    if sys.platform == "win32":
        return 512
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if soft != resource.RLIM_INFINITY else 2**20


def kill_group(process: subprocess.Popen) -> None:
    """Kill a process that was started with `start_new_session`, and, but for Windows, what it has started itself."""
    if sys.platform == "win32":
        process.kill()
        return
    with suppress(ProcessLookupError, PermissionError):  # it has ended by itself; macOS says the second
        os.killpg(process.pid, signal.SIGKILL)


def end_group() -> NoReturn:
    """End this process, which was started with `start_new_session`, and, but for Windows, what it has started itself,
    at once."""
    if sys.platform != "win32":
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def lower_priority() -> None:
    """Let other processes go first, where the system can be asked to."""
    if sys.platform != "win32":
        os.nice(5)
