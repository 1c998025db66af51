"""A server of the OpenAI protocol in a thread: rules answer, and faults can be planned."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from soaes.data.synthesis.calls import Request
from soaes.data.synthesis.writer import RuleWriter


class Server:
    """What it was asked, and what it does instead of answering.

    Attributes:
        bodies: Of the requests, in the order in which they came.
        headers: Likewise.
        faults: Called with the number of the request and its body; returns (status, headers, body)
            instead of an answer, or None.
    """

    def __init__(self):
        self.bodies, self.headers = [], []
        self.faults = lambda number, body: None
        self.lock = threading.Lock()
        self.url = ""

    def respond(self, headers, body):
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            number = len(self.bodies)
        return self.faults(number, body) or (200, {}, answer_body(rules(body)))


def rules(body):
    """What the rules answer to the body of a request."""
    own = ("model", "messages")
    parameters = {name: value for name, value in body.items() if name not in own}
    return RuleWriter().answer(Request(body["model"], tuple(body["messages"]), parameters)).content


def answer_body(content, finish_reason="stop"):
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return {"choices": [{"message": message, "finish_reason": finish_reason}], "usage": usage}


@contextmanager
def openai_server():
    """Yield a `Server` that listens until the block ends."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet a response: no waiting for a delayed acknowledgement

        def do_POST(self):
            assert self.path == "/v1/chat/completions"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, content = server.respond(dict(self.headers), body)
            payload = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *arguments):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
