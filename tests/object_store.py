"""An S3 server on this machine, for tests: moto's, with a bucket in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

BUCKET = "facility"


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve S3 while the context is entered, with the environment that leads clients to it; yield a URL."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with patch.dict(os.environ, found):
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            yield f"s3://{BUCKET}/stores"
    finally:
        server.stop()


def keys() -> list[str]:
    """Return the names of all that the bucket holds."""
    import boto3

    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]
