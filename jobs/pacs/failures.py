"""What it means when a PACS does not do what it is asked, and what to do about it.

The HTTP library's own words never leave: they quote addresses, which hold UIDs and patients' tags.
"""

import requests
from requests.exceptions import JSONDecodeError, SSLError, Timeout, TooManyRedirects

from gen.errors import MedphantomError, NotFound, PeerAway, PeerFailed

PASSING = (429, 500, 502, 503, 504)


def passes(error: requests.RequestException) -> bool:
    """Whether the same request may succeed a little later."""
    if error.response is not None and isinstance(error, requests.HTTPError):
        return error.response.status_code in PASSING
    broken = (requests.ConnectionError, Timeout, requests.exceptions.ChunkedEncodingError)
    return isinstance(error, broken) and not isinstance(error, SSLError)


def explain(error: requests.RequestException, place: str, doing: str) -> MedphantomError:
    """The error to raise instead.

    Args:
        error: that the last try ended with.
        place: who was asked, such as "the PACS at pacs.example".
        doing: what for, such as "search".
    """
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return _refusal(error.response.status_code, place, doing)
    if isinstance(error, SSLError):
        return PeerAway(
            f"{place} has a certificate that cannot be verified; name the file of the authority "
            "that signed it as ca_bundle"
        )
    if isinstance(error, TooManyRedirects):
        return PeerAway(
            f"{place} leads elsewhere when asked to {doing}, and redirects are not followed; give "
            "as url the address where its DICOMweb service is"
        )
    if isinstance(error, JSONDecodeError):
        return not_dicomweb(place, doing)
    return PeerAway(
        f"{place} cannot be asked to {doing}: {type(error).__name__}; check that it runs, its host "
        "and port, and timeout_s"
    )


def not_dicomweb(place: str, doing: str) -> PeerAway:
    """The error about a server that answers, but not as DICOMweb."""
    return PeerAway(
        f"{place} does not answer as DICOMweb when asked to {doing}; check the path of its url: "
        "that of Orthanc ends in /dicom-web"
    )


def _refusal(status: int, place: str, doing: str) -> MedphantomError:
    answer = f"{place} answers {status} when asked to {doing}"
    if status == 401:
        return PeerAway(
            f"{answer}: it does not accept the credentials; correct token, or username and "
            "password, in its entry of MEDPHANTOM_PACS"
        )
    if status == 403:
        return PeerFailed(f"{answer}: it does not allow that; ask who runs it for the right")
    if status == 404:
        return NotFound(
            f"{answer}: it has nothing there; check that this was not deleted, and the path of its "
            "url: that of Orthanc ends in /dicom-web"
        )
    if status in PASSING:
        return PeerAway(f"{answer}, several times; try again when it works")
    return PeerFailed(f"{answer}; check the path of its url, and its log")
