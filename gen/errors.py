"""Every error that medphantom raises on purpose.

MedphantomError
├── InvalidInput        an argument breaks a rule (also a ValueError)
│   └── UnsafeFile      a picture or DICOM file is refused before it is decoded
├── ModelRefused        a model is unknown, unsafe or does not match its card (also a ValueError)
├── ProcessCancelled    the result of a cancelled process was asked for
├── NotFound            nothing of that id is there, or it is somebody else's
├── Conflict            the id is taken by something else
├── LeaseLost           the work was cancelled or given to another worker meanwhile
├── NotAllowed          the key is missing, unknown, revoked or lacks a scope
├── PeerFailed          another machine refused something, or its answer is of no use
│   └── PeerAway        it cannot be reached, is overloaded, or is not what it is taken for
└── Busy                no room now, or the quota is spent: come back later

A message names the argument, its value, the rule and what to do instead.
"""


class MedphantomError(Exception):
    """The root: catch this to catch everything below."""


class InvalidInput(MedphantomError, ValueError):
    """An argument breaks a rule."""


class UnsafeFile(InvalidInput):
    """A picture or DICOM file is refused before it is decoded."""


class ModelRefused(MedphantomError, ValueError):
    """A model is unknown, unsafe or does not match its card."""


class ProcessCancelled(MedphantomError):
    """The result of a cancelled process was asked for."""


class NotFound(MedphantomError):
    """Nothing of that id is there, or it is somebody else's."""


class Conflict(MedphantomError):
    """The id is taken by something else."""


class LeaseLost(MedphantomError):
    """The work was cancelled or given to another worker meanwhile; what was made is not wanted."""


class NotAllowed(MedphantomError):
    """The key is missing, unknown or revoked; or it is `known` and lacks a scope."""

    def __init__(self, message: str, known: bool = False) -> None:
        super().__init__(message)
        self.known = known


class PeerFailed(MedphantomError):
    """Another machine refused something, or its answer is of no use."""


class PeerAway(PeerFailed):
    """It cannot be reached, is overloaded, or is not what it is taken for: nothing else will go."""


class Busy(MedphantomError):
    """No room now, or the quota is spent.

    Args:
        message: what is full, and what to do.
        retry_after_s: when to come back, in seconds.
        reason: a short word for metrics, such as "queue" or "quota".
    """

    def __init__(self, message: str, retry_after_s: float, reason: str) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.reason = reason
