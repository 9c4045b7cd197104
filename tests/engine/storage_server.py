"""An S3-compatible server in this process, with one bucket, for tests of uploads."""

from __future__ import annotations

import httpx

VARIABLES = {
    "SGLANG_CLOUD_STORAGE_TYPE": "s3",
    "SGLANG_S3_BUCKET_NAME": "pictures",
    "SGLANG_S3_ACCESS_KEY_ID": "the-key",
    "SGLANG_S3_SECRET_ACCESS_KEY": "the-secret",
}


class S3Server:
    """moto's server in a thread, on a free port of loopback."""

    def __enter__(self) -> S3Server:
        from moto.moto_server.threaded_moto_server import ThreadedMotoServer

        self.server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self.server.start()
        host, port = self.server.get_host_and_port()
        self.variables = {**VARIABLES, "SGLANG_S3_ENDPOINT_URL": f"http://{host}:{port}"}
        bucket = f"{self.variables['SGLANG_S3_ENDPOINT_URL']}/{VARIABLES['SGLANG_S3_BUCKET_NAME']}"
        assert httpx.put(bucket).status_code == 200
        self.bucket = bucket
        return self

    def names(self) -> str:
        """What the server says it holds."""
        return httpx.get(self.bucket).text

    def __exit__(self, *error: object) -> None:
        self.server.stop()
