"""A client that does not read, as plain as a socket."""
import json
import socket
import urllib.parse


class SilentReader:
    """Sends a request over a socket with a small buffer and does not read the answer."""

    def __init__(self, url, path, body):
        target = urllib.parse.urlsplit(url)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.socket.settimeout(60)
        self.socket.connect((target.hostname, target.port))
        data = json.dumps(body).encode()
        self.socket.sendall(f"POST {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n"
                            f"content-type: application/json\r\n"
                            f"content-length: {len(data)}\r\n\r\n".encode() + data)

    def read_all(self, *, whole=True):
        """Everything, at last, and closes. Returns (head, body without chunk framing).

        @param whole  False: it is cut before its end, and must be
        """
        received = bytearray()
        while piece := self.socket.recv(1 << 18):
            received += piece
        self.close()
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        return head.decode(), dechunked(body, whole) if b"chunked" in head.lower() else body

    def close(self):
        self.socket.close()


def dechunked(body, whole=True):
    pieces = []
    while b"\r\n" in body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            assert whole, "it was to be cut and came to its end"
            return b"".join(pieces)
        pieces.append(body[:length])
        body = body[length + 2:]
    assert not whole, "the chunked body was broken off"
    return b"".join(pieces)
