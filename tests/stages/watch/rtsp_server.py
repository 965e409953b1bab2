"""A camera for tests: one client, one MPEG-TS file as RTP in the RTSP connection (RFC 2326, 2250), then it hangs up.

python rtsp_server.py FILE.ts SECONDS     prints its port, plays the file within so many seconds
"""

from __future__ import annotations

import socket
import struct
import sys
import time

SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
SDP += "m=video 0 RTP/AVP 33\r\na=control:track\r\n"
CHUNK = 7 * 188


def answer(client: socket.socket, request: str) -> str:
    """Answer one request; returns its method."""
    method, address = request.split()[:2]
    fields = dict(line.split(": ", 1) for line in request.split("\r\n")[1:] if ": " in line)
    lines, body = [f"CSeq: {fields['CSeq']}", "Session: 1"], ""
    if method == "OPTIONS":
        lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
    elif method == "DESCRIBE":
        body = SDP
        lines += [f"Content-Base: {address}/", "Content-Type: application/sdp", f"Content-Length: {len(body)}"]
    elif method == "SETUP":
        lines.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
    client.sendall(("RTSP/1.0 200 OK\r\n" + "\r\n".join(lines) + "\r\n\r\n" + body).encode())
    return method


def play(client: socket.socket, content: bytes, seconds: float) -> None:
    """All of it, evenly over the time."""
    chunks = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
    begun = time.monotonic()
    for number, chunk in enumerate(chunks):
        at = seconds * number / len(chunks)
        time.sleep(max(0.0, begun + at - time.monotonic()))
        packet = struct.pack(">BBHII", 0x80, 33, number & 0xFFFF, int(at * 90_000), 1) + chunk
        client.sendall(struct.pack(">BBH", 0x24, 0, len(packet)) + packet)


def main() -> None:
    """Serve once."""
    with open(sys.argv[1], "rb") as file:
        content = file.read()
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        client, _ = server.accept()
        with client:
            received = ""
            while True:
                received += client.recv(65536).decode()
                while "\r\n\r\n" in received:
                    request, _, received = received.partition("\r\n\r\n")
                    if answer(client, request) == "PLAY":
                        play(client, content, float(sys.argv[2]))
                        return


if __name__ == "__main__":
    main()
