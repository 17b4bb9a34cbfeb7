"""What a service is made of: the arguments of `serve.app:build`."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gen.errors import InvalidInput
from jobs.hosts import is_loopback
from jobs.pacs.settings import PACSSettings
from jobs.settings import Settings


class AppArgs(BaseModel):
    """Arguments of `serve.app:build`, from YAML, the command line or a test."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    models: tuple[str, ...] = Field(
        ("cxr-mini", "histo-mini"),
        min_length=1,
        description="Models callers may name; the first is warmed up, the first that fits a task "
        "is what its requests get",
    )
    store: str = Field(
        default_factory=lambda: Settings().store_url,
        description="SQLAlchemy URL of jobs and keys; MEDPHANTOM_STORE, or in the data folder",
    )
    results: str = Field(
        default_factory=lambda: Settings().results_root,
        description="Folder or fsspec URL of results; MEDPHANTOM_RESULTS, or in the data folder",
    )
    pacs: dict[str, PACSSettings] = Field(
        default_factory=lambda: Settings().pacs,
        description="By name, those whose studies callers with the scope pacs may have mapped; "
        "MEDPHANTOM_PACS",
    )
    stores: dict[str, str] = Field(
        default_factory=lambda: Settings().stores,
        description="By name, folders or fsspec URLs whose data sets callers with the scope data "
        "may name in jobs; MEDPHANTOM_STORES",
    )
    copies: Path = Field(
        default_factory=lambda: Settings().copies,
        description="Folder of each host for copies of data sets and what gates learnt of them",
    )
    require_keys: bool = Field(True, description="Refuse callers without an API key")

    min_replicas: int = Field(1, ge=0, description="Samplers; 0 lets an idle service use none")
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float = Field(
        8, gt=0, description="Requests a sampler should hold; more start another one"
    )
    upscale_delay_s: float = Field(10, ge=0)
    downscale_delay_s: float = Field(300, ge=0)
    ingress_replicas: int = Field(1, ge=1)
    num_cpus: float | None = Field(
        None, gt=0, description="Of a sampler; null is 1 with a GPU, else half of the machine's, up"
    )
    num_gpus: float = Field(0, ge=0, description="Of a sampler; may be a fraction")
    threads: int | None = Field(None, ge=1, description="CPU threads of a sampler; null: num_cpus")
    precision: Literal["auto", "fp32", "fp16", "bf16"] = Field(
        "auto", description="Of the networks; auto is fp16 on a GPU and fp32 on a CPU"
    )
    max_rows: int | None = Field(
        None, ge=1, le=1024, description="Most rows of a forward, 2^n; null measures the best"
    )
    model_memory_mb: int | None = Field(
        None, ge=1, description="Of all loaded models together; null is no limit"
    )

    max_live_requests: int = Field(32, ge=1, description="Requests one sampler works on at once")
    max_queued_requests: int = Field(64, ge=0, description="Requests that may wait beyond those")
    max_live_requests_per_key: int = Field(16, ge=1, description="Of one key, in one ingress")
    max_queued_requests_per_key: int = Field(32, ge=0, description="That wait beyond those")
    max_body_bytes: int = Field(65536, ge=1024, description="Of most requests")
    max_image_body_bytes: int = Field(
        24 * 2**20, ge=1024, description="Of those that may bring pictures, from known callers"
    )
    job_slots: int = Field(8, ge=1, description="Items of jobs under way at once")
    lease_s: float = Field(
        30, gt=0, description="How long after a worker's death others take its items over"
    )
    result_ttl_hours: float = Field(24, gt=0, description="How long jobs and results are kept")
    stall_s: float = Field(
        120,
        gt=0,
        description="A forward longer than this is taken for a hang; the replica restarts",
    )
    drain_s: float = Field(120, ge=0, description="What a replica that must go may take to finish")

    @model_validator(mode="after")
    def _replicas_fit(self) -> "AppArgs":
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas is {self.min_replicas}, but max_replicas {self.max_replicas}; "
                "raise max_replicas"
            )
        if self.target_ongoing_requests > self.max_live_requests:
            raise ValueError(
                f"target_ongoing_requests is {self.target_ongoing_requests:g}, but a sampler never "
                f"holds more than max_live_requests, {self.max_live_requests}: overload would not "
                "be seen; lower it"
            )
        return self

    @model_validator(mode="after")
    def _rows_are_compared(self) -> "AppArgs":
        if self.max_rows and self.max_rows & (self.max_rows - 1):
            raise ValueError(
                f"max_rows is {self.max_rows}, but must be a power of two; "
                f"try {1 << (self.max_rows.bit_length() - 1)}"
            )
        return self

    @property
    def cpus(self) -> float:
        """CPUs of a sampler."""
        if self.num_cpus is not None:
            return self.num_cpus
        return 1 if self.num_gpus else max(1, (os.cpu_count() or 1) // self.max_replicas)


def check_exposure(args: AppArgs, host: str) -> None:
    """Refuse to answer strangers.

    Raises:
        InvalidInput: the service could be reached from other machines, and anybody may use it.
    """
    if not args.require_keys and not is_loopback(host):
        raise InvalidInput(
            f"host is {host}, which other machines can reach, but require_keys is false: anybody "
            "could use this service; set require_keys to true, or bind to 127.0.0.1"
        )
