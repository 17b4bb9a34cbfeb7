"""What this process computes on, as figures are labelled with it."""


def device_name(threads: int | None = None) -> str:
    """The GPU's name, or the CPU with the threads that were used; None is this process's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu ({threads or torch.get_num_threads()} threads)"


def rows_at_once() -> int:
    """Rows of a forward where nobody waits for another: enough to fill what it runs on."""
    import torch

    return 64 if torch.cuda.is_available() else 16
