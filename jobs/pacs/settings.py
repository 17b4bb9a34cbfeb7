"""Where a PACS is reached and as whom: an entry of MEDPHANTOM_PACS."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    field_validator,
    model_validator,
)

from jobs.hosts import is_loopback


class PACSSettings(BaseModel):
    """One PACS. No error repeats a value: it may be a secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field(description="Of its DICOMweb service, as https://pacs.example/dicom-web")
    token: SecretStr | None = Field(None, description="Bearer token")
    username: str | None = Field(None, description="Of basic authentication, with password")
    password: SecretStr | None = None
    ca_bundle: FilePath | None = Field(
        None, description="PEM file that its certificate is held against; null: public authorities"
    )
    timeout_s: float = Field(
        30, gt=0, le=600, description="For a connection, and for each piece of an answer"
    )
    allow_http: bool = Field(False, description="Send patients' data unencrypted to another host")
    store_results: bool = Field(False, description="Whether results are stored in it")

    @field_validator("url")
    @classmethod
    def _url_is_an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError("the url holds credentials; give token, or username and password")
        clean = url.isascii() and url.isprintable() and not set(url) & set(" ?#")
        if not (clean and url.startswith(("http://", "https://")) and parts.hostname):
            raise ValueError("the url must be https://HOST[:PORT]/PATH, without spaces, ? and #")
        if parts.port == 0:  # reading it raises ValueError if it is no port at all
            raise ValueError("the port must be from 1 to 65535")
        return url.rstrip("/")

    @field_validator("token")
    @classmethod
    def _token_fits_a_header(cls, token: SecretStr | None) -> SecretStr | None:
        # the HTTP library would quote it in its own complaint
        value = "none" if token is None else token.get_secret_value()
        if not value.isascii() or not value.isprintable() or not value or " " in value:
            raise ValueError("the token is empty or has spaces, line breaks or other than ASCII")
        return token

    @model_validator(mode="after")
    def _one_way_to_sign_in(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password need each other; give both or neither")
        if self.token is not None and self.username is not None:
            raise ValueError("give a token, or username and password, not both")
        if self.username is not None and ":" in self.username:
            raise ValueError("the username must have no colon: basic authentication ends it there")
        return self

    @model_validator(mode="after")
    def _others_are_reached_encrypted(self) -> Self:
        parts = urlsplit(self.url)
        safe = parts.scheme == "https" or is_loopback(parts.hostname or "")
        if not safe and not self.allow_http:
            raise ValueError(
                f"the url is http, but {parts.hostname} is another machine: patients' data would "
                "travel unencrypted; use https, or set allow_http in its entry of MEDPHANTOM_PACS"
            )
        return self
