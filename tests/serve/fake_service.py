"""A small service that follows the HTTP contract, for tests of the page: no model, no database.

Jobs live in memory and are made of grey noise, step by step. A test holds them at a step
(`hold_at`), lets go (`release`), and sets what is refused, what fails and which streams break.
"""

import asyncio
import base64
import hashlib
import io
import json
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from PIL import Image

PAGE = Path(__file__).parents[2] / "serve" / "page"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
Format = Annotated[str | None, Query(alias="format")]
OVER = ("succeeded", "failed", "cancelled")
LARGEST_SEED = 2**63 - 1  # no double holds it: a page that rounds makes another image
DEFAULTS = {
    "negative_prompt": "",
    "n": 1,
    "height": None,
    "width": None,
    "num_inference_steps": 25,
    "guidance_scale": 1.5,
    "scheduler": "dpm++",
    "seed": None,
    "minority": None,
    "minority_method": None,
    "format": "png",
    "model": "cxr-mini",
    "previews": False,
}


LARGE_DEFAULTS = {
    "like": None,
    "variation": None,
    "text": None,
    "width": 2048,
    "height": 2048,
    "method": "shift",
    "num_inference_steps": 25,
    "guidance_scale": 1.0,
    "microns_per_pixel": 0.5,
    "seed": None,
    "model": "histo-tiny",
    "previews": False,
}
MAP_DEFAULTS = {
    "method": "autopaint",
    "prompt": None,
    "threshold": None,
    "threshold_fpr": None,
    "seed": None,
    "model": "cxr-mini",
    "previews": False,
}
BOXES = [  # of maps, which are 64 x 64
    {"x": 4.0, "y": 8.0, "w": 20.0, "h": 16.0, "score": 0.06},
    {"x": 40.0, "y": 30.0, "w": 10.0, "h": 12.0, "score": 0.04},
]
FILES = ("overlay.png", "healthy.png", "picture.png", "heat.png", "map.npy", "record.json")
TILE = 256


class Refused(Exception):
    """An answer that is no success."""

    def __init__(
        self, status: int, message: str, field: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.field, self.retry_after = status, field, retry_after

    def response(self) -> JSONResponse:
        error = {"type": "refused", "message": str(self), "field": self.field}
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return JSONResponse({"error": error}, self.status, headers)


def png(seed: int, side: int = 64) -> bytes:
    """Grey noise: the same seed gives the same bytes."""
    noise = random.Random(seed).randbytes(64)
    picture = Image.frombytes("L", (8, 8), noise).resize((side, side), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, "png")
    return stream.getvalue()


def dicom(seed: int) -> bytes:
    """What a reader of files takes for DICOM."""
    return b"\0" * 128 + b"DICM" + png(seed)


def tile(seed: int) -> bytes:
    """A JPEG of one colour."""
    stream = io.BytesIO()
    Image.new("RGB", (TILE, TILE), (200, seed % 256, 180)).save(stream, "jpeg")
    return stream.getvalue()


def tiff(seed: int) -> bytes:
    """What a reader of files takes for a TIFF."""
    return b"II*\0" + png(seed)


def archive(seed: int) -> bytes:
    """What a reader of files takes for an archive."""
    return b"PK\3\4" + png(seed)


CODECS = {"png": png, "dicom": dicom, "preview": png, "tiff": tiff, "zip": archive}
SUFFIXES = {"png": "png", "dicom": "dcm", "preview": "png", "tiff": "ome.tif", "zip": "zip"}
MEDIA_TYPES = {
    "png": "image/png",
    "dicom": "application/dicom",
    "preview": "image/png",
    "tiff": "image/tiff",
    "zip": "application/zip",
}


def frame(seq: int, kind: str, data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"id: {seq}\r\nevent: {kind}\r\ndata: {json.dumps(data)}\r\n\r\n".encode()


def iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


@dataclass
class Job:
    """A job, its items as GET .../items gives them, and its events (kind, data)."""

    id: str
    spec: dict[str, Any]
    items: list[dict[str, Any]]
    task: str = "text-to-cxr"
    status: str = "queued"
    created_at: float = field(default_factory=time.time)
    started_at: float | None = None
    finished_at: float | None = None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def count(self, status: str) -> int:
        return sum(item["status"] == status for item in self.items)

    def finish(self, status: str) -> None:
        self.status, self.finished_at = status, time.time()
        counts = {f"num_{each}": self.count(each) for each in ("succeeded", "failed")}
        self.events.append(("finished", {"status": status, **counts}))

    def to_json(self) -> dict[str, Any]:
        here = f"/v1/jobs/{self.id}"
        return {
            "id": self.id,
            "task": self.task,
            "status": self.status,
            "spec": self.spec,
            "num_items": len(self.items),
            "num_succeeded": self.count("succeeded"),
            "num_failed": self.count("failed"),
            "steps_done": sum(item["steps_done"] for item in self.items),
            "num_steps": sum(item["num_steps"] for item in self.items),
            "created_at": iso(self.created_at),
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "expires_at": iso(self.created_at + 86400),
            "message": None,
            "links": {"self": here, "items": f"{here}/items", "events": f"{here}/events"},
        }


@dataclass
class FakeService:
    """The service and the levers of a test.

    Args:
        key: the only key that is accepted; None needs none.
        hold_at: step at which jobs wait for `release`; None never waits.
        retry_after: seconds of the refusals that the next POSTs get, one each.
        failing: index -> reason, of items that fail at the end.
        break_after: number of the event after which the next stream breaks.
        link_s: how long a signed link holds.
        minority_levels, anomaly_rates: of the model of chest X-rays; None is not calibrated.
    """

    key: str | None = None
    hold_at: int | None = None
    retry_after: list[int] = field(default_factory=list)
    failing: dict[int, str] = field(default_factory=dict)
    break_after: int | None = None
    link_s: float = 3600
    minority_levels: dict[str, tuple[float, float]] | None = None
    anomaly_rates: dict[str, tuple[float, float]] | None = None
    jobs: dict[str, Job] = field(default_factory=dict)
    resumed_at: list[int] = field(default_factory=list)
    sent: dict[str, Any] = field(default_factory=dict)
    tiles: list[tuple[int, int, int]] = field(default_factory=list)
    url: str = ""
    _released: threading.Event = field(default_factory=threading.Event)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    def reset(self) -> None:
        """Forget the jobs and let go of the levers; what still runs ends soon."""
        vars(self).update(vars(FakeService(url=self.url)))

    def release(self) -> None:
        """Let jobs go past `hold_at`."""
        self._released.set()

    def create_large(self, spec: dict[str, Any]) -> Job:
        """Make a job of one large image, but do not start it; `sent` keeps its pictures."""
        unknown = sorted(set(spec) - set(LARGE_DEFAULTS))
        if unknown:
            raise Refused(422, f"{unknown[0]} is no field of a spec", unknown[0])
        self.sent = spec
        spec = {**LARGE_DEFAULTS, **spec, "format": "tiff"}
        for name in ("like", "variation"):
            if spec[name] is not None:
                spec[name] = {"sha256": "cd" * 32, "bytes": len(spec[name])}
        seed = 5 if spec["seed"] is None else spec["seed"]
        return self._add(spec, [self._item(spec, 0, seed)], "large-images")

    def create_maps(self, spec: dict[str, Any]) -> Job:
        """Make a job of a map for each picture, but do not start it; `sent` keeps the pictures."""
        unknown = sorted(set(spec) - set(MAP_DEFAULTS) - {"images"})
        if unknown:
            raise Refused(422, f"{unknown[0]} is no field of a spec", unknown[0])
        self.sent = spec
        pictures = [{"sha256": "cd" * 32, "bytes": len(each)} for each in spec["images"]]
        spec = {**MAP_DEFAULTS, **spec, "images": pictures, "format": "zip"}
        spec["num_inference_steps"] = 27
        items = [self._item(spec, i, (spec["seed"] or 5) + i) for i in range(len(pictures))]
        return self._add(spec, items, "anomaly-maps")

    def create(self, spec: dict[str, Any]) -> Job:
        """Make a job as a POST would, but do not start it."""
        unknown = sorted(set(spec) - set(DEFAULTS) - {"prompt"})
        if unknown:
            raise Refused(422, f"{unknown[0]} is no field of a spec", unknown[0])
        spec = {**DEFAULTS, **spec}
        for name in ("height", "width"):
            if spec[name] is not None and spec[name] % 64:
                message = f"{name} is {spec[name]}, but must be a multiple of 64; try 256"
                raise Refused(422, message, f"spec.{name}")
        prompts = [spec["prompt"]] if isinstance(spec["prompt"], str) else spec["prompt"]
        first = LARGEST_SEED - 100 if spec["seed"] is None else spec["seed"]
        items = [self._item(spec, i, first + i) for i in range(len(prompts) * spec["n"])]
        return self._add(spec, items, "text-to-cxr")

    def _add(self, spec: dict[str, Any], items: list[dict[str, Any]], task: str) -> Job:
        job = Job(f"job-{len(self.jobs)}", spec, items, task)
        job.events.append(("queued", {"num_items": len(items)}))
        self.jobs[job.id] = job
        return job

    def _item(self, spec: dict[str, Any], index: int, seed: int) -> dict[str, Any]:
        return {
            "index": index,
            "status": "queued",
            "seed": seed,
            "steps_done": 0,
            "num_steps": spec["num_inference_steps"],
            "error": None,
            "record": None,
            "image": None,
        }

    def start(self, job: Job) -> None:
        """Begin to work on a job; only from the service's own thread."""
        task = asyncio.get_running_loop().create_task(self._work(job))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _work(self, job: Job) -> None:
        job.status, job.started_at = "running", time.time()
        for item in job.items:
            item["status"] = "running"
            job.events.append(("started", {"index": item["index"]}))
        for step in range(1, job.spec["num_inference_steps"] + 1):
            while step == self.hold_at and not self._released.is_set():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            if job.status == "cancelled":
                return
            self._step(job, step)
        for item in job.items:
            self.complete(job, item)
        job.finish("failed" if job.count("failed") else "succeeded")

    def _step(self, job: Job, step: int) -> None:
        for item in job.items:
            item["steps_done"] = step
            place = {"index": item["index"], "step": step}
            job.events.append(("step", {**place, "num_steps": item["num_steps"]}))
            if job.spec["previews"]:
                picture = base64.b64encode(png(item["seed"] + step, 32)).decode()
                shown = {**place, "image": f"data:image/png;base64,{picture}"}
                job.events.append(("preview", shown))

    def complete(self, job: Job, item: dict[str, Any]) -> None:
        """End one item, well or badly."""
        reason = self.failing.get(item["index"])
        if reason is not None:
            item.update(status="failed", error=reason)
        else:
            item.update(status="succeeded", record=self._record(job, item))
        shown = {key: item[key] for key in ("index", "status", "seed", "error")}
        job.events.append(("item", {**shown, "image": self.shown(job, item)["image"]}))

    def _record(self, job: Job, item: dict[str, Any]) -> dict[str, Any]:
        if job.task == "large-images":
            return self._large_record(job, item)
        if job.task == "anomaly-maps":
            return self._map_record(job, item)
        same = ("negative_prompt", "scheduler", "num_inference_steps", "guidance_scale", "model")
        prompts = (
            [job.spec["prompt"]] if isinstance(job.spec["prompt"], str) else job.spec["prompt"]
        )
        return {
            "task": "text_to_cxr",
            **{key: job.spec[key] for key in same},
            "prompt": prompts[item["index"] // job.spec["n"]],
            "seed": item["seed"],
            "height": job.spec["height"] or 256,
            "width": job.spec["width"] or 256,
            "weight_sha256": "ab" * 32,
            "settings": {"device": "cpu"},
            "software": "medphantom 0.1.0",
            "synthetic": True,
        }

    def _large_record(self, job: Job, item: dict[str, Any]) -> dict[str, Any]:
        same = ("num_inference_steps", "guidance_scale", "model", "width", "height")
        source = next(name for name in ("like", "variation", "text") if job.spec[name])
        settings = {"source": source, "method": job.spec["method"], "microns_per_pixel": 0.5}
        return {
            "task": "large_image",
            **{key: job.spec[key] for key in same},
            "prompt": job.spec["text"] or "",
            "seed": item["seed"],
            "settings": settings,
            "synthetic": True,
        }

    def _map_record(self, job: Job, item: dict[str, Any]) -> dict[str, Any]:
        same = ("method", "model")
        return {
            "task": "anomaly_map",
            **{key: job.spec[key] for key in same},
            "prompt": "Frontal chest X-ray. Findings: no acute finding.",
            "seed": item["seed"],
            "width": 64,
            "height": 64,
            "score": 0.031,
            "threshold": 0.025,
            "boxes": BOXES,
            "files": FILES,
            "settings": {"method": job.spec["method"], "device": "cpu"},
            "synthetic": True,
        }

    def shown(self, job: Job, item: dict[str, Any]) -> dict[str, Any]:
        """An item with a link to its image, if there is one."""
        if item["status"] != "succeeded":
            return item
        kind, expires = job.spec["format"], time.time() + self.link_s
        data = CODECS[kind](item["seed"])
        image = {
            "url": f"/v1/results/{job.id}/{item['index']}?expires={expires:.3f}&signature=s",
            "expires_at": iso(expires),
            "media_type": MEDIA_TYPES[kind],
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }
        return {**item, "image": image}

    async def stream(self, job: Job, after: int) -> AsyncIterator[bytes]:
        """Server-sent events with \\r\\n and a keep-alive, cut where it hurts."""
        yield b": ping\r\n\r\n"
        limit, self.break_after = self.break_after, None
        while limit is None or after < limit:
            fresh = list(enumerate(job.events[:limit], 1))[after:]
            if fresh:
                text = b"".join(frame(seq, kind, data) for seq, (kind, data) in fresh)
                for part in (text[:9], text[9:-3], text[-3:]):
                    yield part
                after, (kind, _) = fresh[-1]
                if kind == "finished":
                    return
            await asyncio.sleep(0.02)
        raise ConnectionError("a test breaks this stream")


def create_app(service: FakeService) -> FastAPI:
    """The routes the page uses."""
    app = FastAPI()

    def job_of(job_id: str) -> Job:
        if job_id not in service.jobs:
            raise Refused(404, "no such job")
        return service.jobs[job_id]

    @app.exception_handler(Refused)
    async def refuse(_: Request, error: Refused) -> JSONResponse:
        return error.response()

    @app.middleware("http")
    async def check_key(request: Request, call_next: Any) -> Response:
        free = not request.url.path.startswith("/v1/") or "/results/" in request.url.path
        given = request.headers.get("Authorization")
        if service.key is not None and not free and given != f"Bearer {service.key}":
            return Refused(401, "a key is needed").response()
        response: Response = await call_next(request)
        response.headers["Content-Security-Policy"] = CSP
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    @app.get("/")
    async def index() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/page/{name:path}")
    async def asset(name: str) -> FileResponse:
        return FileResponse(PAGE / name)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        mini: dict[str, Any] = {"id": "cxr-mini", "task": "text-to-image", "image_size": 256}
        if service.minority_levels:
            mini["minority_levels"] = service.minority_levels
        if service.anomaly_rates:
            mini["anomaly_rates"] = service.anomaly_rates
        encoder = {"id": "cxr-encoder-mini", "task": "encoder", "image_size": 128}
        tissue = {"id": "histo-tiny", "task": "embedding-to-image", "image_size": 128}
        return {"data": [{**each, "licence": "Apache-2.0"} for each in (encoder, mini, tissue)]}

    @app.post("/v1/jobs", status_code=201)
    async def post(body: dict[str, Any]) -> dict[str, Any]:
        if service.retry_after:
            raise Refused(429, "the queue is full", retry_after=service.retry_after.pop(0))
        creators = {"large-images": service.create_large, "anomaly-maps": service.create_maps}
        job = creators.get(body["task"], service.create)(body["spec"])
        service.start(job)
        return job.to_json()

    @app.get("/v1/jobs")
    async def list_jobs(limit: int = 20, before: str | None = None) -> dict[str, Any]:
        newest = list(reversed(service.jobs.values()))
        start = 0 if before is None else [job.id for job in newest].index(before) + 1
        page = newest[start : start + limit]
        more = len(newest) > start + limit
        return {"jobs": [job.to_json() for job in page], "next": page[-1].id if more else None}

    @app.get("/v1/jobs/{job_id}")
    async def get(job_id: str) -> dict[str, Any]:
        return job_of(job_id).to_json()

    @app.delete("/v1/jobs/{job_id}")
    async def cancel(job_id: str) -> dict[str, Any]:
        job = job_of(job_id)
        if job.status not in OVER:
            for item in job.items:
                if item["status"] not in OVER:
                    item["status"] = "cancelled"
            job.finish("cancelled")
        return job.to_json()

    @app.get("/v1/jobs/{job_id}/items")
    async def items(job_id: str, start: int = 0, limit: int = 100) -> dict[str, Any]:
        job = job_of(job_id)
        page = [service.shown(job, item) for item in job.items[start : start + limit]]
        return {"items": page, "next": None}

    @app.get("/v1/jobs/{job_id}/events")
    async def events(job_id: str, request: Request) -> StreamingResponse:
        after = int(request.headers.get("Last-Event-ID", 0))
        service.resumed_at.append(after)
        stream = service.stream(job_of(job_id), after)
        return StreamingResponse(stream, media_type="text/event-stream")

    @app.get("/v1/results/{job_id}/{index}/tiles")
    async def slide(job_id: str) -> dict[str, Any]:
        spec = job_of(job_id).spec
        width, height, levels = spec["width"], spec["height"], []
        while not levels or max(levels[-1]["width"], levels[-1]["height"]) > TILE:
            scale = 2 ** len(levels)
            size = {"width": -(-width // scale), "height": -(-height // scale)}
            tiles = {"columns": -(-size["width"] // TILE), "rows": -(-size["height"] // TILE)}
            levels.append({**size, **tiles})
        here = {"width": width, "height": height, "tile": TILE, "microns_per_pixel": 0.5}
        return {**here, "levels": levels}

    @app.get("/v1/results/{job_id}/{index}/tiles/{level}/{column}/{row}")
    async def one_tile(level: int, column: int, row: int) -> Response:
        service.tiles.append((level, column, row))
        return Response(tile(40 * level), media_type="image/jpeg")

    @app.get("/v1/results/{job_id}/{index}/files/{name}")
    async def member(job_id: str, index: int, name: str) -> Response:
        headers = {"Content-Disposition": f'inline; filename="{job_id}-{index}-{name}"'}
        data = png(job_of(job_id).items[index]["seed"] + FILES.index(name))
        kind = "image/png" if name.endswith("png") else "application/octet-stream"
        return Response(data, media_type=kind, headers=headers)

    @app.get("/v1/results/{job_id}/{index}")
    async def result(job_id: str, index: int, kind: Format = None) -> Response:
        job = job_of(job_id)
        kind = kind or job.spec["format"]
        name = f"{job_id}-{index}.{SUFFIXES[kind]}"
        headers = {"Content-Disposition": f'inline; filename="{name}"'}
        data = CODECS[kind](job.items[index]["seed"])
        return Response(data, media_type=MEDIA_TYPES[kind], headers=headers)

    return app


@contextmanager
def serving(service: FakeService) -> Iterator[FakeService]:
    """Serve on a free loopback port, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    service.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        create_app(service), log_level="critical", ws="none", lifespan="off", access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield service
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()
