"""One file a group of routes; a new task is a new file here and one in `jobs/tasks`.

text_to_cxr.py         POST /v1/text-to-cxr
large_images.py        POST /v1/large-images
anomaly_maps.py        POST /v1/anomaly-maps
jobs.py                /v1/jobs: create, look, list, cancel
job_events.py          /v1/jobs/{id}/events
data_sets.py           /v1/jobs/{id}/report, samples.tar, errors.jsonl: of jobs over data sets
results.py             /v1/results: files by signed links
bundles.py             /v1/results/.../files: the files of a result that has several
tiles.py               /v1/results/.../tiles: slides for viewers
images_generations.py  POST /v1/images/generations, OpenAI's images API
models.py              GET /v1/models
health.py              /health/live, /health/ready, /metrics
page.py                / and /page: the web page
"""

from serve.routes import (
    anomaly_maps,
    bundles,
    data_sets,
    health,
    images_generations,
    job_events,
    jobs,
    large_images,
    models,
    page,
    results,
    text_to_cxr,
    tiles,
)

ROUTERS = (
    text_to_cxr.router,
    large_images.router,
    anomaly_maps.router,
    jobs.router,
    job_events.router,
    data_sets.router,
    results.router,
    bundles.router,
    tiles.router,
    images_generations.router,
    models.router,
    health.router,
    page.router,
)
