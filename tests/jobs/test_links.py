"""A signed link opens one result until its time is over, and nothing else."""

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.errors import NotAllowed
from jobs.links import check, link_secret, sign
from jobs.store import JobStore

SECRET = b"s" * 32


def test_a_signature_is_the_hmac_sha256_of_what_it_opens() -> None:
    digest = hmac.new(SECRET, b"medphantom result/1700/3/job-1", hashlib.sha256).digest()
    signature = sign(SECRET, "job-1", 3, 1700)
    assert base64.urlsafe_b64decode(signature + "=") == digest
    assert len(signature) == 43


def test_a_link_opens_until_the_second_it_expires() -> None:
    signature = sign(SECRET, "a", 0, 1700)
    check(SECRET, "a", 0, 1700, signature, now=1699.9)
    with pytest.raises(NotAllowed, match="expired") as refusal:
        check(SECRET, "a", 0, 1700, signature, now=1700.0)
    assert refusal.value.known


@given(
    st.tuples(st.text(), st.integers(), st.integers()),
    st.tuples(st.text(), st.integers(), st.integers()),
)
def test_no_two_results_share_a_signature(
    one: tuple[str, int, int], other: tuple[str, int, int]
) -> None:
    assert (sign(SECRET, *one) == sign(SECRET, *other)) == (one == other)


@pytest.mark.parametrize("signature", ["", "A" * 43, "é", "\ud800", "\0"])
def test_a_forged_signature_is_refused_whatever_its_characters(signature: str) -> None:
    with pytest.raises(NotAllowed, match="changed"):
        check(SECRET, "a", 0, 1700, signature, now=0)


@pytest.mark.parametrize(("job_id", "index", "expires"), [("b", 0, 9), ("a", 1, 9), ("a", 0, 10)])
def test_a_signature_opens_nothing_but_its_own_result(
    job_id: str, index: int, expires: int
) -> None:
    with pytest.raises(NotAllowed, match="changed"):
        check(SECRET, job_id, index, expires, sign(SECRET, "a", 0, 9), now=0)


def test_another_secret_gives_another_signature() -> None:
    with pytest.raises(NotAllowed, match="changed"):
        check(b"t" * 32, "a", 0, 9, sign(SECRET, "a", 0, 9), now=0)


def test_every_process_of_a_store_signs_with_the_same_secret(tmp_path: Path) -> None:
    stores = [JobStore(f"sqlite:///{tmp_path / 'jobs.db'}") for _ in range(2)]
    one, other = map(link_secret, stores)
    for store in stores:
        store.close()
    assert one == other
    assert len(one) == 32
