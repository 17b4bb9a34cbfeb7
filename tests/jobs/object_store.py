"""A real S3 server in this process, to which fsspec's s3:// leads, too."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer


@contextmanager
def s3_server(bucket: str) -> Iterator[Any]:
    """A client of a server with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    arguments = {
        "endpoint_url": f"http://{host}:{port}",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
        "region_name": "us-east-1",
    }
    client = boto3.client("s3", **arguments)
    client.create_bucket(Bucket=bucket)
    with pytest.MonkeyPatch.context() as patch:
        use_endpoint(patch, arguments["endpoint_url"])
        yield client
    client.close()
    server.stop()


def use_endpoint(patch: pytest.MonkeyPatch, url: str) -> None:
    """Where s3:// leads."""
    once = {"retries": {"max_attempts": 0}}
    options = {"endpoint_url": url, "key": "test", "secret": "test", "config_kwargs": once}
    patch.setitem(fsspec.config.conf, "s3", options)
