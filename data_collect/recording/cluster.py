"""Workers of the recorder on the machines of a Ray cluster, which all see the recording's folder.

    Pool(dataset, plan, settings, RayCrew(8), on_frames=print).run()

Each is a task of Ray's that connects to this process by a socket. Ray starts one that dies again, here or elsewhere.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from multiprocessing import AuthenticationError, connection
from typing import Any

from data_collect.errors import UserError
from data_collect.recording.workers import work


class RayCrew:
    """So many workers, of which 0 means one for each processor of the cluster. `UserError` where there is no Ray.

    `doors` become readable when a worker has come, and `accept` gives its pipe.
    """

    replaces = True

    def __init__(self, count: int) -> None:
        try:
            import ray
        except ImportError:
            raise UserError("--workers ray needs a package: pip install 'game_wm[ray]'") from None
        if not ray.is_initialized():
            ray.init(log_to_driver=False)  # the cluster that RAY_ADDRESS names, else one on this machine alone
        self.ray, self.key = ray, secrets.token_bytes(32)
        self.count = count or int(ray.cluster_resources()["CPU"])
        self.doors = [socket.create_server(("", 0))]
        self.tasks: list[Any] = []

    def start(self) -> list[Any]:
        address = self.ray.util.get_node_ip_address(), self.doors[0].getsockname()[1]
        paths = [os.path.abspath(path) for path in sys.path]
        task = self.ray.remote(max_retries=-1, num_cpus=1)(record_episodes)
        self.tasks = [task.remote(address, self.key, paths) for _ in range(self.count)]
        return []

    def accept(self) -> Any:
        """The pipe of a worker that has come; None where it was not one of ours."""
        pipe = connection.Connection(self.doors[0].accept()[0].detach())
        try:
            connection.deliver_challenge(pipe, self.key)
            connection.answer_challenge(pipe, self.key)
        except (AuthenticationError, OSError, EOFError):
            pipe.close()
            return None
        return pipe

    def end(self) -> None:
        for door in self.doors:
            door.close()
        for task in self.tasks:
            self.ray.cancel(task)


def record_episodes(address: tuple[str, int], key: bytes, paths: list[str]) -> None:
    """A worker's life on its machine."""
    sys.path[:] = paths
    try:
        pipe: Any = connection.Client(address, authkey=key)
    except (OSError, EOFError):
        return  # the recorder has ended
    work(pipe)
