"""Shared by the tests of batches: the command, and a server that answers by a function."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from . import commands
from .commands import COMMAND, PATIENCE
from .wire import completion


def command(source, target, *arguments):
    return [*COMMAND, "batch", str(source), str(target), *arguments]


def run(source, target, *arguments, **environment):
    """Run a batch in this process."""
    return commands.run("batch", source, target, *arguments, **environment)


def written(target):
    return [json.loads(line) for line in target.read_text("utf-8").splitlines()]


def ids_in(target):
    return [told["id"] for told in written(target)]


def question(body):
    """The content of the last message of a request."""
    return body["messages"][-1]["content"]


def wait_until(condition):
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.001)


class BatchServer:
    """Answers each request with what `answer(body)` returns: a text, a response as a dict, or
    a tuple of status, body and headers. `asked` lists the bodies, `times` when they came."""

    def __init__(self, answer=lambda body: "ok"):
        self.asked, self.times = [], []
        lock, ours = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or head and body come 40 ms apart

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    ours.times.append(time.monotonic())
                    ours.asked.append(body)
                    told = answer(body)
                status, told, headers = told if isinstance(told, tuple) else (200, told, {})
                content = json.dumps(completion(told) if isinstance(told, str) else told).encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": len(content)}.items():
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 100

            def handle_error(self, *arguments):
                pass  # a client that was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def questions(self):
        return [question(body) for body in self.asked]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def reply_with_error(status, message="no", **headers):
    return status, {"error": {"message": message}}, headers
