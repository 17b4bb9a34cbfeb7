"""Pictures of a PACS analysed one by one, with the results stored beside them.

Work is done at least once, a result is visible once: an analysis gives its objects UIDs that depend
on the picture and itself alone, so a run that was cut off is simply started again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pydicom.dataset import Dataset

from gen.data.limits import Limits
from gen.errors import MedphantomError, PeerAway
from jobs.pacs.connection import PACS
from jobs.pacs.ledger import Ledger
from jobs.pacs.retrieval import read_marks, retrieve
from jobs.pacs.search import Instance, is_result
from jobs.pacs.storage import store_missing

MAX_AWAY = 3  # pictures in a row; one that breaks the PACS is skipped, a PACS that is down ends it

Analyse = Callable[[bytes], Sequence[Dataset]]
"""From a DICOM file to its results, in its study and with deterministic UIDs."""


class State(StrEnum):
    """What became of a picture."""

    STORED = "stored"
    MADE = "made"  # and not stored, as was asked
    PRESENT = "present"  # the PACS has all results already
    RESULT = "result"  # it is a result itself, as its file tells
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """A picture, and what became of it."""

    instance: Instance
    state: State
    results: tuple[Dataset, ...] = field(default=(), repr=False)
    reason: str | None = None  # of a failure; without UIDs or tags


def process_studies(
    pacs: PACS,
    instances: Iterable[Instance],
    analyse: Analyse,
    *,
    store: bool,
    report: Callable[[Outcome], None],
    ledger: Ledger | None = None,
    limits: Limits | None = None,
) -> Counter[State]:
    """Analyse every picture; one that fails is reported with its reason, and the others go on.

    Args:
        store: store the results, unless the PACS has them.
        report: called once for each picture, in order.
        ledger: what was stored before: these pictures are not fetched, if `store`. Without one,
            all are analysed again, but nothing is stored twice.
        limits: of a picture, as `retrieve` takes them.

    Returns:
        How many pictures ended in each state.

    Raises:
        PeerAway: the PACS was away for MAX_AWAY pictures in a row; run it again, done is done.
    """
    counts: Counter[State] = Counter()
    away = 0
    for instance in instances:
        lost: PeerAway | None = None
        try:
            outcome = _process(pacs, instance, analyse, store, ledger, limits)
        except PeerAway as error:
            lost = error
            outcome = Outcome(instance, State.FAILED, reason=str(error))
        except MedphantomError as error:
            outcome = Outcome(instance, State.FAILED, reason=str(error))
        except Exception as error:  # its message may quote the file
            reason = f"the analysis failed with {type(error).__name__}"
            outcome = Outcome(instance, State.FAILED, reason=reason)
        counts[outcome.state] += 1
        report(outcome)
        away = away + 1 if lost else 0
        if lost and away == MAX_AWAY:
            raise lost
    return counts


def _process(
    pacs: PACS,
    instance: Instance,
    analyse: Analyse,
    store: bool,
    ledger: Ledger | None,
    limits: Limits | None,
) -> Outcome:
    if store and ledger is not None and instance in ledger:
        return Outcome(instance, State.PRESENT)
    data = retrieve(pacs, instance, limits)
    if is_result(read_marks(data)):
        return Outcome(instance, State.RESULT)
    results = tuple(analyse(data))
    if not store:
        return Outcome(instance, State.MADE, results)
    missing = store_missing(pacs, results)
    if ledger is not None:
        ledger.add(instance)
    return Outcome(instance, State.STORED if missing else State.PRESENT, results)
