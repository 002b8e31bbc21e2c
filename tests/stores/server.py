"""An S3 server for tests: moto's, on a free port, which can be told to fail.

`python server.py` prints its URL. `POST /_faults/N` makes it answer the next N requests of S3 with
503 SlowDown, as S3 does under load. `POST /_writes` answers with the paths that have been put or
deleted since it was last asked, one a line. `POST /_deaf/1` makes it ignore conditions, as some
servers of S3's protocol do, and `POST /_deaf/0` heed them again.
"""

import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
_CONDITIONS = {"HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"}


class FailingServer:
    """moto's application behind a counter of faults."""

    def __init__(self):
        self._s3 = DomainDispatcherApplication(create_backend_app)
        self._faults = 0
        self._is_deaf = False
        self._writes = []
        self._lock = threading.Lock()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path.startswith("/_faults/"):
            self._faults = int(path.rpartition("/")[2])
            start_response("200 OK", [("Content-Length", "0")])
            return [b""]
        if path.startswith("/_deaf/"):
            self._is_deaf = path.endswith("1")
            start_response("200 OK", [("Content-Length", "0")])
            return [b""]
        if path == "/_writes":
            with self._lock:
                body, self._writes = "\n".join(self._writes).encode(), []
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]
        with self._lock:
            if environ["REQUEST_METHOD"] in {"PUT", "DELETE"}:
                self._writes.append(path)
            fails = self._faults > 0
            self._faults -= fails
        if self._is_deaf:
            environ = {k: v for k, v in environ.items() if k not in _CONDITIONS}
        if not fails:
            return self._s3(environ, start_response)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"].read(length)
        body = b"" if environ["REQUEST_METHOD"] == "HEAD" else SLOW_DOWN
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        start_response("503 Slow Down", headers)
        return [body]


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, FailingServer(), threaded=True)
    print(f"http://127.0.0.1:{server.port}", flush=True)  # noqa: T201 - read by who started it
    server.serve_forever()
