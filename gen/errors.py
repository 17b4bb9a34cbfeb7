"""Every error that medphantom raises on purpose.

MedphantomError
├── InvalidInput        an argument breaks a rule (also a ValueError)
│   └── UnsafeFile      a picture or DICOM file is refused before it is decoded
├── ModelRefused        a model is unknown, unsafe or does not match its card (also a ValueError)
└── ProcessCancelled    the result of a cancelled process was asked for

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
