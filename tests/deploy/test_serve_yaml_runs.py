"""deploy/serve.yaml, started as its head says."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from jobs.cluster import free_port
from jobs.keys import KeyStore, Scope

pytestmark = pytest.mark.faults

CONFIG = Path(__file__).parents[2] / "deploy/serve.yaml"
START_S = 240


def test_serve_run_takes_the_yaml_and_lets_nobody_in_without_a_key(tmp_path: Path) -> None:
    content = yaml.safe_load(CONFIG.read_text())
    content["http_options"] = {"host": "127.0.0.1", "port": free_port()}
    url = f"http://127.0.0.1:{content['http_options']['port']}"
    config = tmp_path / "serve.yaml"
    config.write_text(yaml.safe_dump(content))
    store = f"sqlite:///{tmp_path}/jobs.db"
    environment = {
        **os.environ,
        # under `uv run`, Ray would start its workers by the uv of the tests
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "MEDPHANTOM_STORE": store,
        "MEDPHANTOM_RESULTS": str(tmp_path / "results"),
    }
    command = [str(Path(sys.executable).with_name("serve")), "run", str(config)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, cwd=CONFIG.parents[1]
        )
    try:
        deadline = time.monotonic() + START_S
        while True:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            try:
                if httpx.get(f"{url}/health/ready", timeout=10).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        body = {"prompt": "a chest x-ray", "num_inference_steps": 2}
        assert httpx.post(f"{url}/v1/text-to-cxr", json=body).status_code == 401
        _, secret = KeyStore(store).create("test", [Scope.GENERATE], None)
        headers = {"Authorization": f"Bearer {secret}", "Accept": "image/png"}
        answer = httpx.post(f"{url}/v1/text-to-cxr", json=body, headers=headers, timeout=60)
        assert answer.raise_for_status().content.startswith(b"\x89PNG")
    finally:
        process.terminate()
        process.wait(timeout=120)
