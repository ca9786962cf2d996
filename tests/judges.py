"""A server with OpenAI's HTTP interface in this process, which grades as a test says."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(answer):
    """Yield the server's address and the requests that it got; ``answer`` returns a status and a reply of a request."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "body": body, "key": self.headers.get("Authorization")})
            status, reply = answer(body["messages"][0]["content"])
            content = reply if isinstance(reply, bytes) else _completion(reply)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _completion(reply):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": reply}}]}).encode()
