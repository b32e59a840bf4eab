"""Every shape that crosses a process boundary: records, Redis keys, store paths, the adapter's manifest.

Redis (`{…}` is filled in; all values are strings, structured ones JSON):

| key                          | type    | written by     | read by        | lives                             |
|------------------------------|---------|----------------|----------------|-----------------------------------|
| lift:document:{id}           | HASH    | server         | server         | until deleted                     |
| lift:documents               | ZSET    | server         | server         | members: ids, score: created_at   |
| lift:documents:{owner}       | ZSET    | server         | server         | likewise, one owner's             |
| lift:sets:{document id}      | SET     | server         | server         | until deleted: the sets it is in  |
| lift:upload:{id}             | HASH    | server         | server         | twice UPLOAD_OPEN_S: UploadRecord |
| lift:upload:{id}:parts       | HASH    | server         | server         | likewise; part id to its bytes    |
| lift:uploads:{owner}         | ZSET    | server         | server         | open ones: ids, score: expires_s  |
| lift:job:{key}               | HASH    | server, worker | server, worker | until its last document goes      |
| lift:job:{key}:documents     | SET     | server         | server         | likewise                          |
| lift:job:{key}:learning      | STRING  | worker         | server         | likewise: LearningRecord          |
| lift:job:{key}:lease         | STRING  | worker         | worker         | worker.lease_s; stream and entry  |
| lift:jobs                    | STREAM  | server         | worker         | entry deleted when acknowledged   |
| lift:line:{owner}            | SET     | server, worker | server         | its first versions in lift:jobs   |
| lift:jobs:bulk               | STREAM  | worker         | worker         | likewise; behind lift:jobs        |
| lift:jobs:refine             | STREAM  | worker         | worker         | likewise; behind both             |
| {stream}:turns               | ZSET    | server, worker | server, worker | who waits for it: jobs, score: turn |
| {stream}:turns:{owner}       | ZSET    | server, worker | server, worker | likewise, one owner's             |
| {stream}:last-turn           | STRING  | worker         | server, worker | the turn that was taken last      |
| lift:bell                    | STREAM  | server         | worker         | one entry, that names no job      |
| lift:dead-letters            | ZSET    | server, worker | server         | members: jobs, score: failed_s   |
| lift:speeds:{recipe}         | LIST    | worker         | server         | Speed, the newest SPEEDS_KEPT     |
| lift:changed                 | channel | server, worker | server         | message: a job's key              |
| lift:worker:{name}           | STRING  | worker         | server         | the worker's lease                |
| lift:engines                 | SET     | engine         | server, worker | addresses of registered engines   |
| lift:engine:{address}        | STRING  | engine         | server, worker | ENGINE_LEASE_S: EngineRecord      |
| lift:lock:{name}             | STRING  | server         | server         | while held, or locks.LEASE_S      |
| lift:key:{digest}            | STRING  | server, `keys` | server         | KeyRecord of lift_server; a copy  |
| lift:keys                    | STRING  | server, `keys` | server         | there: keys exist, all are copied |
| lift:whole                   | STRING  | server         | server         | there: all that the store has is here |
| lift:store                   | STRING  | server         | server         | whose records these are: its id   |
| lift:limits:{owner}          | STRING  | server, `keys` | server         | those of the owner's newest key   |
| lift:window:{kind}:{key id}  | STRING  | server         | server         | a minute; requests or tokens in it |
| lift:adapter:{id}            | HASH    | worker, engine | engine         | redis.blob_ttl_s; a cache         |

The adapter's HASH holds field `manifest` and, per file, chunks `{file}:{number:05d}` of CHUNK_BYTES, so it is
evicted as a whole and knows no 512 MB limit.

Store (object paths below store_url; the record of everything, Redis can be rebuilt from it):

| path                         | written by | content                                                  |
|------------------------------|------------|----------------------------------------------------------|
| documents/{id}.json          | server     | DocumentRecord                                           |
| originals/{id}               | server     | the upload as it came                                    |
| uploads/{id}.{part id}       | server     | a part of an upload that is not complete yet             |
| texts/{job key}              | server     | the normalised text, UTF-8                               |
| places/{job key}.json        | server     | where in the text headings and pages begin, if any       |
| jobs/{job key}.json          | both       | JobRecord: at upload, with each version, at its end      |
| keys/{digest}.json           | `keys`     | KeyRecord of lift_server: whose key, its limits          |
| adapters/{adapter id}/{file} | worker     | PEFT adapter; manifest.json last, so it means "complete" |
| clock                        | server     | empty; its date is the store's time                      |
| probe                        | server     | there for a moment, where a write had failed             |
| id                           | server     | random: this store and no other                          |
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Self

from lift_config.phases import Timeline
from lift_config.prompts import PROMPT_VERSION
from lift_config.recipe import Recipe, load_recipes

# ---- owners -----------------------------------------------------------------------------------------------

DEFAULT_OWNER = "default"  # the one owner there is without API keys


def cache_salt(owner: str, given: str = "") -> str | None:
    """What sets `owner`'s part of the engine's prefix cache apart (vLLM's `cache_salt`), and within it what the owner
    salted with `given`: how soon the engine answers, and how many prompt tokens it found computed, shows nobody what
    others sent. None for the default owner, who is alone."""
    if owner == DEFAULT_OWNER:
        return None
    return hashlib.sha256(f"{owner} {given}".encode()).hexdigest()


# ---- Redis keys -------------------------------------------------------------------------------------------

JOBS_STREAM = "lift:jobs"
JOBS_GROUP = "workers"
JOB_FIELD = "job"  # a stream entry's only field: the key of the job to train
BULK_STREAM = "lift:jobs:bulk"  # first versions that take long, or are one of many: nobody else is to wait for them
REFINE_STREAM = "lift:jobs:refine"  # jobs with a version already; they step back for those without one
STREAMS = (JOBS_STREAM, BULK_STREAM, REFINE_STREAM)  # in the order they are worked off
TURN_STREAMS = (BULK_STREAM, REFINE_STREAM)  # a worker moves the job of the lowest turn there, and takes it
BELL_STREAM = "lift:bell"  # wakes workers for what waits for its turn
DEAD_LETTERS_KEY = "lift:dead-letters"
CHANGED_CHANNEL = "lift:changed"
DOCUMENTS_KEY = "lift:documents"
WORKER_PREFIX = "lift:worker:"
ENGINES_KEY = "lift:engines"
ENGINE_LEASE_S = 10.0  # an engine silent for so long is registered no more
UPLOAD_OPEN_S = 3600  # parts older than that belong to no open upload
KEYS_KEY = "lift:keys"
WHOLE_KEY = "lift:whole"
STORE_KEY = "lift:store"
SPEEDS_KEPT = 20
CHUNK_BYTES = 4 * 2**20
MANIFEST_FIELD = "manifest"


def document_redis_key(document_id: str) -> str:
    return f"lift:document:{document_id}"


def owner_redis_key(owner: str) -> str:
    return f"{DOCUMENTS_KEY}:{owner}"


def line_redis_key(owner: str) -> str:
    return f"lift:line:{owner}"


def turns_redis_key(stream: str, owner: str | None = None) -> str:
    """Of all that wait for one of TURN_STREAMS, or of one owner's."""
    return f"{stream}:turns" if owner is None else f"{stream}:turns:{owner}"


def last_turn_redis_key(stream: str) -> str:
    return f"{stream}:last-turn"


def sets_redis_key(document_id: str) -> str:
    return f"lift:sets:{document_id}"


def upload_redis_key(upload_id: str) -> str:
    return f"lift:upload:{upload_id}"


def upload_parts_redis_key(upload_id: str) -> str:
    return f"lift:upload:{upload_id}:parts"


def open_uploads_redis_key(owner: str) -> str:
    return f"lift:uploads:{owner}"


def job_redis_key(job_key: str) -> str:
    return f"lift:job:{job_key}"


def job_documents_redis_key(job_key: str) -> str:
    return f"lift:job:{job_key}:documents"


def job_learning_redis_key(job_key: str) -> str:
    return f"lift:job:{job_key}:learning"


def job_lease_redis_key(job_key: str) -> str:
    return f"lift:job:{job_key}:lease"


def engine_redis_key(address: str) -> str:
    return f"lift:engine:{address}"


def lock_redis_key(name: str) -> str:
    return f"lift:lock:{name}"


def speeds_redis_key(recipe: str) -> str:
    return f"lift:speeds:{recipe}"


def key_redis_key(digest: str) -> str:
    return f"lift:key:{digest}"


def limits_redis_key(owner: str) -> str:
    return f"lift:limits:{owner}"


def window_redis_key(kind: str, name: str) -> str:
    return f"lift:window:{kind}:{name}"


def adapter_redis_key(adapter_id: str) -> str:
    return f"lift:adapter:{adapter_id}"


def chunk_field(file_name: str, number: int) -> str:
    return f"{file_name}:{number:05d}"


# ---- store paths ------------------------------------------------------------------------------------------

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")  # what PEFT and vLLM read; never pickle
MANIFEST_FILE = "manifest.json"
PARTS_FOLDER = "uploads"
STORE_FOLDERS = ("documents", "originals", "texts", "places", "jobs", "adapters", "keys", PARTS_FOLDER)
CLOCK_PATH = "clock"
PROBE_PATH = "probe"
STORE_ID_PATH = "id"


def document_path(document_id: str) -> str:
    return f"documents/{document_id}.json"


def original_path(document_id: str) -> str:
    return f"originals/{document_id}"


def part_path(upload_id: str, part_id: str) -> str:
    return f"{PARTS_FOLDER}/{upload_id}.{part_id}"


def text_path(job_key: str) -> str:
    return f"texts/{job_key}"


def places_path(job_key: str) -> str:
    return f"places/{job_key}.json"


def job_path(job_key: str) -> str:
    return f"jobs/{job_key}.json"


def key_path(digest: str) -> str:
    return f"keys/{digest}.json"


def adapter_path(adapter_id: str, file_name: str) -> str:
    return f"adapters/{adapter_id}/{file_name}"


# ---- identity ---------------------------------------------------------------------------------------------

DOCUMENT_ID = re.compile(r"doc_[0-9a-f]{24}")
UPLOAD_ID = re.compile(r"upload_[0-9a-f]{24}")
ADAPTER_ID = re.compile(r"[0-9a-f]{32}-[0-9a-f]{12}")


def job_key(*, owner: str, text: str, title: str | None, base_model: str, base_revision: str, recipe: Recipe) -> str:
    """32 hex digits naming one training by all its inputs (product.md, the document object).

    `text` is normalised already; `title` only where the uploader gave one: a file name never enters.
    """
    inputs = [owner, text, title, base_model, base_revision, recipe.digest(), PROMPT_VERSION]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]


def adapter_id(key: str, weights_sha256: str) -> str:
    """Inputs and bytes: new weights never appear under an old name (vLLM's caches trust the name)."""
    return f"{key}-{weights_sha256[:12]}"


# ---- records ----------------------------------------------------------------------------------------------


class Status(StrEnum):
    QUEUED = "queued"
    TRAINING = "training"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = frozenset({Status.QUEUED, Status.TRAINING})


@dataclass(frozen=True)
class Progress:
    """How far a job is; `fraction` 0..1 of the expected work, `eta_s` None while unknown."""

    phase: str = "queue"
    fraction: float = 0.0
    eta_s: float | None = None
    segments: int = 0
    tasks: int = 0
    steps: int = 0


@dataclass(frozen=True)
class AdapterRecord:
    """One published version of a document's adapter. `ready_s` is Unix seconds; `tasks` and `steps` went into it."""

    id: str
    version: int
    base_model: str
    recipe: str
    rank: int
    size_bytes: int
    ready_s: float
    tasks: int = 0
    steps: int = 0


@dataclass(frozen=True)
class LearningRecord:
    """What an owner sees of a training, of the last where there were several: the newest tasks (question, answer),
    newest last; the loss (step, mean since the point before); where in the text the segment stands that each task is
    about, which an older worker does not tell. Apart from JobRecord, which lists and questions read.
    """

    tasks: tuple[tuple[str, str], ...] = ()
    losses: tuple[tuple[int, float], ...] = ()
    spans: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        values = json.loads(text)
        names = ("tasks", "losses", "spans")
        return cls(**{name: tuple(tuple(one) for one in values.get(name, ())) for name in names})


@dataclass(frozen=True)
class EngineRecord:
    """What a registered engine serves."""

    base_model: str
    base_revision: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Engines may be newer than we are: what else they say is passed over. ValueError for what is no record."""
        values = json.loads(text)
        try:
            return cls(str(values["base_model"]), str(values["base_revision"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no EngineRecord: {text!r}") from error


@dataclass(frozen=True)
class SynthesisUsage:
    """What writing a document's tasks cost the engine. `computed_prompt_tokens`: not served by its prefix cache."""

    requests: int = 0
    prompt_tokens: int = 0
    computed_prompt_tokens: int = 0
    generated_tokens: int = 0


@dataclass(frozen=True)
class Speed:
    """One version's way: from its claim to published, for so many bytes of normalised text."""

    text_bytes: int
    seconds: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Failure:
    """Why a job failed, in words its owner may read. `code` is a string as in OpenAI's envelope.

    `attempts`, of those after which it was given up though another might succeed, makes it a dead letter; 0: another
    would end the same. `failed_s` is Unix seconds. Records of version 0.1 have neither.
    """

    code: str
    message: str
    attempts: int = 0
    failed_s: float = 0.0


@dataclass(frozen=True)
class JobRecord:
    """One training: inputs, then what became of it. `fence` counts claims; only the newest may publish.

    `status` says whether it can be asked; `unfinished` whether training is wanted or under way, which it may be
    after `ready`: better versions follow. `traceparent` (W3C) is the upload's trace. `text_bytes` and `is_bulk`, which
    says that its first version waits in BULK_STREAM, are missing in records of version 0.1.
    """

    key: str
    owner: str
    title: str | None
    base_model: str
    base_revision: str
    recipe: str
    received_s: float
    status: Status = Status.QUEUED
    unfinished: bool = True
    traceparent: str | None = None
    text_bytes: int = 0
    is_bulk: bool = False
    tokens: int = 0
    fence: int = 0
    progress: Progress = Progress()
    timeline: Timeline = field(default_factory=Timeline)
    adapters: tuple[AdapterRecord, ...] = ()
    synthesis: SynthesisUsage = SynthesisUsage()
    error: Failure | None = None

    def changed(self, **values: Any) -> Self:
        return replace(self, **values)

    def best(self) -> AdapterRecord | None:
        """The version that answers: that of the most thorough recipe, the newest of equals; None without any."""
        recipes = load_recipes()

        def worth(adapter: AdapterRecord) -> tuple[int, int]:
            recipe = recipes.get(adapter.recipe)
            return (recipe.effort if recipe else 0), adapter.version

        return max(self.adapters, key=worth, default=None)

    def version_of(self, recipe: str) -> AdapterRecord | None:
        """The newest version trained with `recipe`."""
        return next((adapter for adapter in reversed(self.adapters) if adapter.recipe == recipe), None)

    def to_redis(self) -> dict[str, str]:
        """The HASH's fields. A worker writes a few of them: `{f: record.to_redis()[f] for f in …}`."""
        values = asdict(self) | {"timeline": self.timeline.to_values()}
        return {name: json.dumps(value) for name, value in values.items()}

    @classmethod
    def from_redis(cls, fields: dict[str, str]) -> Self:
        """TypeError or ValueError where `fields` is not a whole record."""
        values = from_hash(fields)
        values["status"] = Status(values["status"])
        values.setdefault("unfinished", values["status"] in ACTIVE)  # records of version 0.1
        values["progress"] = Progress(**values["progress"])
        values["timeline"] = Timeline.from_values(values["timeline"])
        values["adapters"] = tuple(AdapterRecord(**adapter) for adapter in values["adapters"])
        values["synthesis"] = SynthesisUsage(**values.get("synthesis", {}))
        values["error"] = Failure(**values["error"]) if values["error"] else None
        return cls(**values)

    def to_json(self) -> str:
        """The same as one JSON object, for the store."""
        return json.dumps({name: json.loads(value) for name, value in self.to_redis().items()})

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        return cls.from_redis({name: json.dumps(value) for name, value in json.loads(text).items()})


@dataclass(frozen=True)
class DocumentRecord:
    """What an owner uploaded. What became of it is its job's record. Times are Unix seconds.

    `purpose` is for clients of /v1/files only. `document_ids`: of a set, the documents that its text is made of, in
    order. Records of version 0.1 have neither.
    """

    id: str
    owner: str
    job_key: str
    title: str | None
    filename: str | None
    size_bytes: int
    sha256: str
    created_s: float
    metadata: dict[str, str] = field(default_factory=dict)
    expires_s: float | None = None
    purpose: str = "user_data"
    document_ids: list[str] = field(default_factory=list)

    def is_expired(self, now_s: float) -> bool:
        return self.expires_s is not None and self.expires_s <= now_s

    def to_redis(self) -> dict[str, str]:
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_redis(cls, fields: dict[str, str]) -> Self:
        return cls(**from_hash(fields))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class UploadRecord:
    """A file that comes in parts (/v1/uploads). `fields` are the document's, as they were sent; times Unix seconds.
    `document_id`: what it was completed to."""

    id: str
    owner: str
    filename: str
    size_bytes: int
    purpose: str
    created_s: float
    status: Literal["pending", "completed", "cancelled"] = "pending"
    fields: dict[str, Any] = field(default_factory=dict)
    document_id: str | None = None

    @property
    def expires_s(self) -> float:
        return self.created_s + UPLOAD_OPEN_S

    def to_redis(self) -> dict[str, str]:
        return {name: json.dumps(value) for name, value in asdict(self).items()}

    @classmethod
    def from_redis(cls, fields: dict[str, str]) -> Self:
        return cls(**from_hash(fields))


def from_hash(fields: dict[str, str]) -> dict[str, Any]:
    """A HASH's fields, each JSON; all parsed at once, since lists read thousands of records."""
    return dict(zip(fields, json.loads(f"[{','.join(fields.values())}]"), strict=True))


# ---- the adapter's manifest -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ManifestFile:
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an engine checks before it loads an adapter: its base model, every file's checksum, and, where there are
    adapter_secrets, that a worker signed all of it."""

    adapter_id: str
    base_model: str
    base_revision: str
    rank: int
    files: dict[str, ManifestFile]
    signature: str = ""  # HMAC-SHA256 of the rest

    def signed(self, secret: str) -> Self:
        return replace(self, signature=self._hmac(secret))

    def is_signed_with(self, secrets: Iterable[str]) -> bool:
        """Whether any of them made the signature."""
        given = self.signature.encode("utf-8", "replace")
        return any(hmac.compare_digest(self._hmac(secret).encode(), given) for secret in secrets)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """ValueError where the manifest names other files than ADAPTER_FILES, or does not fit its own id."""
        values = json.loads(text)
        files = {name: ManifestFile(**entry) for name, entry in values.pop("files").items()}
        manifest = cls(files=files, **values)
        if set(files) != set(ADAPTER_FILES):
            raise ValueError(f"manifest of {manifest.adapter_id}: unexpected files {sorted(files)}")
        if not manifest.adapter_id.endswith(files[ADAPTER_FILES[0]].sha256[:12]):
            raise ValueError(f"manifest of {manifest.adapter_id}: weights have another checksum")
        if not isinstance(manifest.signature, str):
            raise ValueError(f"manifest of {manifest.adapter_id}: its signature is no text")
        return manifest

    def _hmac(self, secret: str) -> str:
        content = json.dumps(asdict(replace(self, signature="")), sort_keys=True)
        return hmac.new(secret.encode(), content.encode(), "sha256").hexdigest()


# ---- the engine plug-in's routes (below vLLM's /v1, so that its API key guards them) ------------------------

ENGINE_ADAPTERS_ROUTE = "/v1/lift/adapters"
"""GET lists what is loaded; POST /{id} hot-loads, answers {"state", "load_s"}; DELETE /{id} really removes."""
ENGINE_ALIVE_ROUTE = "/v1/lift/alive"
"""GET is answered by vLLM's core, between two steps; /health only by the HTTP process before it."""


class AdapterState(StrEnum):
    """Where a question found its adapter (product.md, TTFT): the label `adapter_state`."""

    RESIDENT = "resident"  # in the engine's slots
    HOST = "host"  # in the engine's host memory
    FETCHED = "fetched"  # brought from Redis, the store or the engine's local folder
    TRAINING = "training"  # the question waited for it
    NONE = "none"  # base model, or the text in the prompt
