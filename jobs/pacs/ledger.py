"""Which pictures have their results in the PACS: a file of hashes, which tell nothing else."""

import hashlib
import os
from pathlib import Path

from gen.errors import InvalidInput
from jobs.pacs.search import Instance


class Ledger:
    """What one analysis has done, also in runs before this one.

    Args:
        path: made if it is not there; one file can serve several analyses.
        analysis: everything but the picture that decides the results, such as weights and
            threshold: another analysis starts anew.

    Raises:
        InvalidInput: the file cannot be opened.
    """

    def __init__(self, path: str | Path, analysis: str) -> None:
        self._path = Path(path)
        self._analysis = analysis
        try:
            self._path.touch(mode=0o600)
            # a line that a crash cut short is like no other
            self._done = set(self._path.read_text("ascii", "replace").splitlines())
        except OSError as error:
            raise InvalidInput(
                f"{path} cannot be opened: {error.strerror}; name another"
            ) from error

    def __contains__(self, instance: Instance) -> bool:
        """Whether its results are stored."""
        return self._line(instance) in self._done

    def add(self, instance: Instance) -> None:
        """Note that its results are stored. Raises OSError if the disk is full."""
        line = self._line(instance)
        with self._path.open("a") as file:
            file.write(f"\n{line}\n")  # not behind a line that was cut short
            file.flush()
            os.fsync(file.fileno())
        self._done.add(line)

    def _line(self, instance: Instance) -> str:
        text = f"{self._analysis}\n{instance.sop_instance_uid}"
        return hashlib.sha256(text.encode()).hexdigest()
