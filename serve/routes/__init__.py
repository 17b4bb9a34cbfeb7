"""One file a group of routes; a new task is a new file here and one in `jobs/tasks`.

text_to_cxr.py         POST /v1/text-to-cxr
jobs.py                /v1/jobs: create, look, list, cancel
job_events.py          /v1/jobs/{id}/events
results.py             /v1/results: files by signed links
images_generations.py  POST /v1/images/generations, OpenAI's images API
models.py              GET /v1/models
health.py              /health/live, /health/ready, /metrics
page.py                / and /page: the web page
"""

from serve.routes import (
    health,
    images_generations,
    job_events,
    jobs,
    models,
    page,
    results,
    text_to_cxr,
)

ROUTERS = (
    text_to_cxr.router,
    jobs.router,
    job_events.router,
    results.router,
    images_generations.router,
    models.router,
    health.router,
    page.router,
)
