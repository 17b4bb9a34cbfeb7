"""Signed links to results, which need no key, so that a browser can show them in an <img>.

The signature is HMAC-SHA256 (RFC 2104) of the job, the item and the time at which it ends.
"""

import base64
import hashlib
import hmac
import secrets

from gen.errors import NotAllowed
from jobs.store import JobStore

FACT = "link-secret"
OUTPUTS = "outputs"  # of a whole job, in place of an item


def link_secret(store: JobStore) -> bytes:
    """The 32 bytes that sign links: drawn once, and the same in every process of a store."""
    return bytes.fromhex(store.remember(FACT, {"hex": secrets.token_hex(32)})["hex"])


def sign(secret: bytes, job_id: str, index: int | str, expires: int) -> str:
    """The signature, 43 characters that need no escape in a URL.

    Args:
        secret: what `link_secret` gives.
        job_id: of the job.
        index: of the item, or `OUTPUTS`.
        expires: unix time in seconds from which the link is void.
    """
    # numbers first: whatever the id holds, no two triples give the same message
    message = f"medphantom result/{expires}/{index}/{job_id}".encode("utf-8", "surrogatepass")
    digest = hmac.digest(secret, message, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def check(
    secret: bytes, job_id: str, index: int | str, expires: int, signature: str, now: float
) -> None:
    """Let a link pass that `sign` made and that has not ended at unix time `now`.

    Raises:
        NotAllowed: the link was changed, or its time is over.
    """
    made = sign(secret, job_id, index, expires).encode()
    if not hmac.compare_digest(made, signature.encode("utf-8", "surrogatepass")):
        raise NotAllowed("the link was changed; take it from the job's items", known=True)
    if now >= expires:
        raise NotAllowed("the link has expired; take a new one from the job's items", known=True)
