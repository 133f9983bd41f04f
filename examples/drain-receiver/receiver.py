#!/usr/bin/env python3
"""A receiver of Logplex frames: prints each line once.

Usage: receiver.py [PORT] [CERTIFICATE KEY]. Without a certificate it serves plain HTTP on 127.0.0.1;
with one (PEM files) it serves HTTPS on all addresses. Add the drain with
`tributary drains add APP https://HOST:PORT/`.
"""
import collections, gzip, http.server, ssl, sys

seen = collections.OrderedDict()  # ids of recent frames: a frame that is sent again is not printed


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection open for the next frame

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        frame_id = self.headers["Logplex-Frame-Id"]
        if frame_id not in seen:
            while body:  # octet counting: length, space, message
                length, _, body = body.partition(b" ")
                message, body = body[: int(length)], body[int(length) :]
                # <14>1 TIME host ORIGIN PROCESS - TEXT
                _, time, _, origin, process, _, text = message.rstrip(b"\n").split(b" ", 6)
                sys.stdout.buffer.write(b"%s %s[%s]: %s\n" % (time, origin, process, text))
            sys.stdout.flush()
            seen[frame_id] = True
            while len(seen) > 10_000:
                seen.popitem(last=False)
        self.send_response(204)  # confirms the frame
        self.end_headers()

    def log_message(self, *args):
        pass


port, *identity = sys.argv[1:] or ["8000"]
server = http.server.ThreadingHTTPServer(("" if identity else "127.0.0.1", int(port)), Receiver)
if identity:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*identity)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(f"listening on port {server.server_port}", flush=True)
server.serve_forever()
