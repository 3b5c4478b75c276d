"""Receivers as the documents of customer-events and idp-push show them to people who write Python.

    receiver.py flask     customer-events: X-Webhook-Signature over request.get_data()
    receiver.py fastapi   idp-push: X-IDP-Signature over await request.body()

With Flask, or FastAPI and uvicorn, where they are installed; else the same few lines on http.server. Prints
`port N`, the framework, and a line for each request. The secret is in $SECRET.
"""

import hashlib
import hmac
import json
import os
import socket
import sys
import threading

SECRET = os.environ["SECRET"].encode()


def say(line):
    print(line, flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def signature(body):
    return "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()


def customer_event(headers, body):
    """customer-events."""
    if not hmac.compare_digest(headers.get("X-Webhook-Signature", ""), signature(body)):
        say("refused signature")
        return 401, {"error": "Invalid signature"}
    event = json.loads(body)
    if not isinstance(event["data"]["id"], str) or not event["timestamp"].endswith("Z"):
        say("refused shape")
        return 400, {"error": "Invalid event"}
    say(f"accepted {event['event']} {event['data']['id']}")
    return 200, {"received": True}


def finished_task(headers, body):
    """idp-push."""
    if not headers.get("X-IDP-Timestamp", "").isdigit():
        say("refused timestamp")
        return 401, {"detail": "no timestamp"}
    if not hmac.compare_digest(headers.get("X-IDP-Signature", ""), signature(body)):
        say("refused signature")
        return 401, {"detail": "Invalid signature"}
    task = json.loads(body)
    if not isinstance(task["result_json"], dict):
        say("refused shape")
        return 422, {"detail": "result_json is no object"}
    say(f"accepted {task['task_id']} {task['result_json']['total']}")
    return 200, {"status": "ok"}


def on_http_server(handle):
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = handle(self.headers, body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    say("on http.server")
    say(f"port {server.server_address[1]}")
    server.serve_forever()


def on_flask(handle):
    try:
        from flask import Flask, jsonify, request
        from werkzeug.serving import make_server
    except ImportError:
        return on_http_server(handle)
    app = Flask(__name__)

    @app.route("/webhook", methods=["POST"])
    def webhook():
        status, answer = handle(request.headers, request.get_data())
        return jsonify(answer), status

    server = make_server("127.0.0.1", 0, app, threaded=True)
    say("on Flask")
    say(f"port {server.server_port}")
    server.serve_forever()


def on_fastapi(handle):
    try:
        import uvicorn
        from fastapi import FastAPI, Request
        from fastapi.responses import JSONResponse
    except ImportError:
        return on_http_server(handle)
    app = FastAPI()

    @app.post("/webhook")
    async def webhook(request: Request):
        status, answer = handle(request.headers, await request.body())
        return JSONResponse(answer, status_code=status)

    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    say("on FastAPI")
    say(f"port {port}")
    thread.join()


if sys.argv[1] == "flask":
    on_flask(customer_event)
else:
    on_fastapi(finished_task)
