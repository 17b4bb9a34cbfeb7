"""Which PACS may be reached, and how: nothing unencrypted, no secret in an error."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gen.errors import InvalidInput
from jobs.pacs.connection import configured_pacs, open_pacs
from jobs.pacs.settings import PACSSettings
from jobs.settings import Settings

URL = "https://pacs.example/dicom-web"


def entry(**fields: Any) -> PACSSettings:
    return PACSSettings.model_validate({"url": URL, **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "http://pacs.example/dicom-web"}, "pacs.example is another machine"),
        ({"url": "http://127.example.org"}, "use https"),
        ({"url": "https://me:s3cret@pacs.example"}, "holds credentials"),
        ({"url": "pacs.example/dicom-web"}, "must be https://HOST"),
        ({"url": "file:///etc/passwd"}, "must be https://HOST"),
        ({"url": "https://"}, "must be https://HOST"),
        ({"url": "https://pacs.example/?key=s3cret"}, "without spaces, [?] and #"),
        ({"url": "https://pacs.example/#a"}, "without spaces, [?] and #"),
        ({"url": "https://pacs.example:99999"}, "url"),
        ({"token": "s3cret\n"}, "line breaks"),
        ({"token": ""}, "empty"),
        ({"username": "me"}, "need each other"),
        ({"password": "s3cret"}, "need each other"),
        ({"token": "s3cret", "username": "me", "password": "s3cret"}, "not both"),
        ({"username": "m:e", "password": "s3cret"}, "no colon"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"ca_bundle": "/nowhere.pem"}, "does not point to a file"),
        ({"passwort": "s3cret"}, "Extra inputs"),
    ],
)
def test_an_entry_that_cannot_work_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        entry(**fields)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "http://127.0.0.1:8042/dicom-web"},
        {"url": "http://localhost:8042"},
        {"url": "http://[::1]:8042/dicom-web"},
        {"url": "http://pacs.example", "allow_http": True},
        {"token": "s3cret"},
        {"username": "me", "password": "s3cret: pässword"},
    ],
)
def test_an_entry_that_works_is_opened_and_keeps_its_secret(fields: dict[str, Any]) -> None:
    settings = entry(**fields)
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in settings.model_dump_json()
    assert not settings.store_results
    pacs = configured_pacs("archive", {"archive": settings})
    assert (pacs.url, pacs.place) == (settings.url, "the PACS archive")


def test_entries_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    monkeypatch.setenv("MEDPHANTOM_PACS", f'{{"archive": {{"url": "{URL}/", "token": "s3cret"}}}}')
    monkeypatch.setenv("MEDPHANTOM_PACS__ARCHIVE__CA_BUNDLE", str(bundle))
    monkeypatch.setenv("MEDPHANTOM_PACS__SECOND__URL", "http://127.0.0.1:8042")
    monkeypatch.setenv("MEDPHANTOM_PACS__SECOND__STORE_RESULTS", "true")
    pacs = Settings().pacs
    assert pacs["archive"] == entry(token="s3cret", ca_bundle=bundle)
    assert pacs["second"].store_results
    monkeypatch.setenv("MEDPHANTOM_PACS__SECOND__URL", "http://me:s3cret@pacs.example")
    with pytest.raises(ValidationError, match="holds credentials") as caught:
        Settings()
    assert "s3cret" not in str(caught.value)


def test_a_service_reaches_configured_names_only() -> None:
    settings = {"archive": entry(), "research": entry()}
    with pytest.raises(
        InvalidInput, match="pacs is unknown, but must be a configured name: archive"
    ):
        configured_pacs("elsewhere", settings)
    with pytest.raises(InvalidInput, match="pacs is a URL, but must be a configured name"):
        configured_pacs(URL, settings)
    with pytest.raises(InvalidInput, match="none; set MEDPHANTOM_PACS"):
        configured_pacs("archive", {})


def test_a_command_reaches_names_and_urls() -> None:
    settings = {"archive": entry(store_results=True)}
    assert open_pacs("archive", settings).store_results
    assert open_pacs(URL + "/", settings).store_results  # its entry has the credentials
    assert not open_pacs("https://other.example", settings).store_results
    with pytest.raises(InvalidInput, match="pacs is unknown"):
        open_pacs("other", settings)
    with pytest.raises(InvalidInput, match="another machine"):
        open_pacs("http://other.example", settings)
