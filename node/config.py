"""config.yaml as frozen values. Every key has a default that works on one machine; a wrong key stops the start.

``load`` is the only reader of the file; everything else is handed the part it needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from node.errors import Misconfigured

AETitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """Frozen, and refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsSettings(Section):
    """Mutual DICOM TLS (PS3.15 B.12, BCP 195); all three files or none."""

    certificate: Path | None = None
    private_key: Path | None = None
    trusted: Path | None = None

    @property
    def enabled(self) -> bool:
        """Whether TLS is configured."""
        return self.certificate is not None

    @model_validator(mode="after")
    def _all_or_none(self) -> TlsSettings:
        given = [self.certificate, self.private_key, self.trusted]
        if any(given) and not all(given):
            raise ValueError("tls needs certificate, private_key and trusted together")
        return self


class CallerSettings(Section):
    """One application entity that may call falx. ``hosts`` empty: from anywhere."""

    ae_title: AETitle
    hosts: tuple[str, ...] = ()
    silence_s: float | None = Field(default=None, gt=0, description="T1 for this sender; default completion.silence_s")


class ReceptionSettings(Section):
    """The Storage SCP."""

    ae_title: AETitle = "FALX"
    host: str = "0.0.0.0"  # noqa: S104  a DICOM node listens to its network; callers are allow-listed
    port: Port = 11112
    callers: tuple[CallerSettings, ...] = ()
    accept_unknown_callers: bool = False
    tls: TlsSettings = TlsSettings()
    max_associations: int = Field(default=25, ge=1, le=1000)
    max_pdu_bytes: int = Field(default=131072, ge=4096)
    max_object_mb: int = Field(default=2048, ge=1)
    idle_timeout_s: float = Field(default=60.0, gt=0)
    handshake_timeout_s: float = Field(default=10.0, gt=0)
    commit_for_others: bool = Field(default=False, description="Storage commitment SCP for what is received")


class StorageSettings(Section):
    """Where falx keeps things. ``folder`` holds spool, outbox, quarantine, backups and (by default) the databases."""

    folder: Path = Path("/var/lib/falx")
    database: str = Field(default="", description="SQLAlchemy URL (PostgreSQL); empty: SQLite files in the folder")
    min_free_mb: int = Field(default=2048, ge=0, description="refuse with 0xA700 below this")
    purge_below_free_mb: int = Field(default=8192, ge=0, description="purge confirmed studies below this")
    keep_received_days: float = Field(default=7.0, ge=0)
    keep_unanalysed_days: float = Field(default=1.0, ge=0, description="instances that are not for analysis")
    keep_objects_days: float = Field(default=30.0, ge=0)


class CompletionSettings(Section):
    """When a series is complete; see docs/operations.md."""

    silence_s: float = Field(default=10.0, gt=0, description="T1: silence with coverage")
    silence_without_coverage_s: float = Field(default=60.0, gt=0, description="T1b")
    cap_s: float = Field(default=900.0, gt=0, description="T2: hard cap")
    study_silence_s: float = Field(default=600.0, gt=0, description="before 'unsuitable' is said of a study")
    coverage_mm: float = Field(default=100.0, gt=0)


class QuerySettings(Section):
    """A C-FIND source that is asked how many instances a series has."""

    ae_title: AETitle
    host: str
    port: Port
    poll_s: float = Field(default=10.0, gt=0)


class SeriesRules(Section):
    """Which series a model reads; regular expressions are searched case-insensitively in the descriptions."""

    min_age_years: float = 18.0
    min_coverage_mm: float = 100.0
    min_slices: int = 10
    max_slices: int = 1500
    max_tilt_degrees: float = 35.0
    prefer_thickness_mm: tuple[float, float] = (2.5, 6.0)
    exclude_descriptions: tuple[str, ...] = ()
    prefer_descriptions: tuple[str, ...] = ()


class ModelSettings(Section):
    """One model the node runs."""

    enabled: bool = True
    folder: Path | None = Field(default=None, description="default: the shipped model of that name")
    operating_point: str = Field(default="", description="default: the one metadata.json names")
    shadow_folder: Path | None = Field(default=None, description="a candidate that runs without sending its results")
    heatmap_for_negatives: bool = False
    series: SeriesRules = SeriesRules()


class ModelsSettings(Section):
    """The image models."""

    ct_haemorrhage: ModelSettings = ModelSettings()
    mr_abnormality: ModelSettings = ModelSettings()
    workers: int = Field(default=1, ge=1, le=64)
    threads: int = Field(default=0, ge=0, description="CPU threads a worker; 0: all cores shared out")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    studies_at_once: int = Field(default=2, ge=1, le=32, description="studies a worker has in hand; batched together")

    @property
    def by_purpose(self) -> dict[str, ModelSettings]:
        """Every model, by its purpose (node.study)."""
        return {"ct_haemorrhage": self.ct_haemorrhage, "mr_abnormality": self.mr_abnormality}

    @property
    def enabled(self) -> dict[str, ModelSettings]:
        """The models that this node runs, by purpose."""
        return {purpose: model for purpose, model in self.by_purpose.items() if model.enabled}


class DestinationSettings(Section):
    """A PACS that results go to, and which objects it takes."""

    name: str = Field(pattern=r"^[a-z0-9_-]{1,32}$")
    ae_title: AETitle
    host: str
    port: Port
    tls: TlsSettings = TlsSettings()
    sr: Literal["comprehensive-3d", "comprehensive", "enhanced"] = "comprehensive-3d"
    heatmap: Literal["multi-frame", "single-frame", "none"] = "multi-frame"
    key_objects: bool = True
    parametric_map: bool = False
    rejection_notes: bool = Field(default=False, description="takes IOCM rejection notes")
    confirm: Literal["storage-commitment", "c-find", "accepted"] = Field(
        default="storage-commitment", description="the strongest confirmation to try; falls back downwards"
    )
    commitment_timeout_s: float = Field(default=86400.0, gt=0)
    retry_first_s: float = Field(default=5.0, gt=0)
    retry_max_s: float = Field(default=900.0, gt=0)
    max_attempts: int = Field(default=0, ge=0, description="destination faults before dead; 0: never")


class ArchiveSettings(Section):
    """One report archive; ``source`` and ``options`` are read by node.archive.sources."""

    name: str = Field(pattern=r"^[a-z0-9_-]{1,32}$")
    source: Literal["csv", "parquet", "jsonl", "sql", "hl7", "mllp", "fhir", "dicom-sr", "dicom-query"]
    location: str
    columns: dict[str, str] = Field(default_factory=dict, description="falx's field -> the source's column")
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    cron: str = Field(default="0 2 * * *", description="five fields, local time of the host")
    modality: Literal["CT", "MR", ""] = ""


class WebSettings(Section):
    """The pages. Refuses any address but loopback until a user exists."""

    host: str = "127.0.0.1"
    port: Port = 8080
    https_only_cookies: bool = False
    session_hours: float = Field(default=12.0, gt=0)
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret_file: Path | None = None
    oidc_role_claim: str = "falx_role"


class LogSettings(Section):
    """Structured logs to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Settings(Section):
    """The whole configuration."""

    reception: ReceptionSettings = ReceptionSettings()
    storage: StorageSettings = StorageSettings()
    completion: CompletionSettings = CompletionSettings()
    queries: tuple[QuerySettings, ...] = ()
    models: ModelsSettings = ModelsSettings()
    destinations: tuple[DestinationSettings, ...] = ()
    archives: tuple[ArchiveSettings, ...] = ()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _unique_names(self) -> Settings:
        for what, names in (
            ("destination", [d.name for d in self.destinations]),
            ("archive", [a.name for a in self.archives]),
            ("caller", [c.ae_title for c in self.reception.callers]),
        ):
            doubled = sorted({n for n in names if names.count(n) > 1})
            if doubled:
                raise ValueError(f"{what} names must differ: {', '.join(doubled)} is given twice")
        return self


def parse(document: object, source: str = "configuration") -> Settings:
    """Return Settings from a parsed document; raise Misconfigured naming each wrong key."""
    try:
        return Settings.model_validate(document or {})
    except ValidationError as error:
        lines = [f"  {'.'.join(str(p) for p in e['loc']) or '(top)'}: {e['msg']}" for e in error.errors()]
        raise Misconfigured(f"{source} is not usable:\n" + "\n".join(lines)) from None


def load(path: Path) -> Settings:
    """Read config.yaml; raise Misconfigured when it is missing, not YAML, or wrong."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"{path}: {error.strerror}; give the configuration with -c FILE") from None
    except yaml.YAMLError as error:
        raise Misconfigured(f"{path} is not YAML: {error}") from None
    return parse(document, str(path))
