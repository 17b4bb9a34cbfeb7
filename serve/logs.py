"""Our log lines go where Ray Serve's go. They hold ids, counts, timings and names of types."""

import logging


def join_serve_logs() -> None:
    """Let everything under `medphantom` be written by Serve's handlers."""
    ours = logging.getLogger("medphantom")
    ours.parent = logging.getLogger("ray.serve")
    ours.setLevel(logging.INFO)
