"""A PACS that can be asked: signed in, verified, patient for a while, and silent about patients."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from pydantic import ValidationError
from requests.auth import AuthBase, HTTPBasicAuth

from gen.errors import InvalidInput
from jobs.pacs.failures import explain, passes
from jobs.pacs.settings import PACSSettings

WAITS_S = (1.0, 2.0, 4.0)  # between tries: an archive that restarts needs longer, and a new run

T = TypeVar("T")


def open_pacs(name_or_url: str, settings: Mapping[str, PACSSettings]) -> "PACS":
    """A PACS for the command line: one of `settings`, or any that the user of this machine names.

    A URL that has an entry gets its credentials.

    Raises:
        InvalidInput: the name is unknown, or the URL breaks a rule of `PACSSettings`.
    """
    if "://" not in name_or_url:
        return configured_pacs(name_or_url, settings)
    try:
        given = PACSSettings(url=name_or_url)
    except ValidationError as error:
        raise InvalidInput(f"pacs: {error.errors()[0]['msg']}") from None
    return PACS(next((each for each in settings.values() if each.url == given.url), given))


def configured_pacs(name: str, settings: Mapping[str, PACSSettings]) -> "PACS":
    """A PACS for a service, whose callers choose among those its operator configured.

    Raises:
        InvalidInput: the name is unknown, or a URL.
    """
    if name not in settings:
        known = ", ".join(sorted(settings)) or "none; set MEDPHANTOM_PACS"
        kind = "a URL" if "://" in name else "unknown"
        raise InvalidInput(f"pacs is {kind}, but must be a configured name: {known}")
    return PACS(settings[name], f"the PACS {name}")


class PACS:
    """The DICOMweb service of a PACS; for one thread at a time.

    Args:
        settings: where it is, and who we are there.
        place: what messages call it; None is by its host, which not everybody need know.
        sleep: waits so many seconds between tries.
    """

    def __init__(
        self,
        settings: PACSSettings,
        place: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = settings.url
        self.place = place or f"the PACS at {urlsplit(settings.url).netloc}"
        self.store_results = settings.store_results
        self.timeout_s = settings.timeout_s
        self.session = _session(settings)
        self.client = DICOMwebClient(self.url, session=self.session, timeout=self.timeout_s)
        self.client.set_http_retry_params(retry=False)  # it would retry on any exception
        self._sleep = sleep
        _hush()

    def ask(self, doing: str, request: Callable[[], T]) -> T:
        """The answer to a request that may be repeated, tried again while it may help.

        Args:
            doing: what is asked, for messages.
            request: raises RequestException if it fails.

        Raises:
            NotFound: nothing is where it asked.
            PeerAway: the PACS is unreachable, overloaded, wants other credentials, or is no PACS.
            PeerFailed: it refused.
        """
        waits = iter(WAITS_S)
        while True:
            try:
                return request()
            except requests.RequestException as error:
                wait_s = next(waits, None)
                if wait_s is None or not passes(error):
                    raise explain(error, self.place, doing) from None
            self._sleep(wait_s)


class _SignedIn(AuthBase):
    """Credentials of every request."""

    def __init__(self, settings: PACSSettings) -> None:
        self._token = settings.token
        self._basic: HTTPBasicAuth | None = None
        if settings.username is not None and settings.password is not None:
            secret = settings.password.get_secret_value().encode()
            self._basic = HTTPBasicAuth(settings.username.encode(), secret)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.pop("Host", None)  # DICOMwebClient sets it without the port
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        return self._basic(request) if self._basic else request


def _session(settings: PACSSettings) -> requests.Session:
    session = requests.Session()
    session.auth = _SignedIn(settings)
    session.trust_env = False  # no proxy, netrc or CA but those of the configuration
    session.max_redirects = 0  # nor another host
    if settings.ca_bundle is not None:
        session.verify = str(settings.ca_bundle)
    return session


class _NoAddresses(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        line = record.getMessage()
        return not any(part in line for part in ("/studies", "/series", "/instances"))


_NO_ADDRESSES = _NoAddresses()


def _hush() -> None:
    """Keep UIDs and searched tags out of logs, at DEBUG too: the libraries write both."""
    logging.getLogger("dicomweb_client").setLevel(logging.ERROR)
    logging.getLogger("urllib3.connectionpool").addFilter(_NO_ADDRESSES)
