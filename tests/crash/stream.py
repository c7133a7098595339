"""A client that reads a stream to its end, however that comes."""
import json


def unchunked(data):
    """The body of an answer in chunks, as far as it came: an event may lie in several chunks."""
    body, data = b"", data.partition(b"\r\n\r\n")[2]
    while b"\r\n" in data:
        size, _, data = data.partition(b"\r\n")
        body += data[:int(size, 16)]
        data = data[int(size, 16) + 2:]
    return body


def read_stream(server, key, received, i, last=None):
    """Count the tokens that arrive in received[i]: with logprobs, every token is named in the stream. last[i]: the last event."""
    body = json.dumps({"model": "smol", "prompt": f"Story {i}:", "max_tokens": 400, "ignore_eos": True, "stream": True,
                       "logprobs": 0}).encode()
    data = b""
    try:
        with server.connect(timeout=300) as s:
            s.sendall(server.head(key=key, more=f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n") + body)
            while piece := s.recv(65536):
                data += piece
    except OSError:
        pass
    for line in unchunked(data).split(b"\n"):
        if line.startswith(b"data: {"):
            try:
                event = json.loads(line[6:])
            except ValueError:
                continue  # cut in the middle
            received[i] += sum(len(c["logprobs"]["tokens"]) for c in event.get("choices", []))
            if last is not None:
                last[i] = event
