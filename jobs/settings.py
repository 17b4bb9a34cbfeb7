"""What differs between hosts, from the environment: MEDPHANTOM_DATA, _STORE and so on."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from jobs.pacs.settings import PACSSettings


class Settings(BaseSettings):
    """Where jobs, keys and results are kept, and which PACS may be reached."""

    model_config = SettingsConfigDict(
        env_prefix="MEDPHANTOM_", env_nested_delimiter="__", frozen=True, hide_input_in_errors=True
    )

    data: Path = Field(
        default_factory=lambda: Path.home() / ".medphantom",
        description="Folder for what is not placed elsewhere",
    )
    store: str | None = Field(None, description="SQLAlchemy URL of the database of jobs and keys")
    results: str | None = Field(None, description="Folder or fsspec URL of the results")
    stores: dict[str, str] = Field(
        default_factory=dict,
        description="Folders or fsspec URLs of data sets by name, as JSON; jobs name them lab:cxr",
    )
    pacs: dict[str, PACSSettings] = Field(
        default_factory=dict,
        description="By name, as JSON; or one variable each, as MEDPHANTOM_PACS__ARCHIVE__URL",
    )

    @property
    def store_url(self) -> str:
        """The database: an SQLite file in the data folder if none is named."""
        if self.store is not None:
            return self.store
        folder = self.data.expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return f"sqlite:///{folder / 'medphantom.db'}"

    @property
    def copies(self) -> Path:
        """Where data sets are copied to from stores that are no local folders."""
        return self.data.expanduser().resolve() / "copies"

    @property
    def results_root(self) -> str:
        """The place of results: a folder in the data folder if none is named."""
        return self.results or str(self.data.expanduser().resolve() / "results")
