#!/usr/bin/env python3
"""The demonstration behind ./run demo: one tenant, one question, one bill, with nothing but Python's standard library.

usage: demo.py UNKAI MODEL.gguf [--keep]

It starts `unkai serve` on a free loopback port with a data folder of its own, made for this run and removed after it; makes a tenant with
credit and a key; asks through the API, streaming; and prints what happened. --keep leaves the server running until Ctrl-C."""
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

QUESTION = "Why is the sky blue? Answer in two sentences."
MODEL = "smollm2"


def unkai(program, home, *words):
    done = subprocess.run([program, *words], env={**os.environ, "UNKAI_HOME": home}, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"demo: unkai {' '.join(words)} ended with {done.returncode}")
    return json.loads(done.stdout)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until_healthy(server, port):
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit("demo: the server ended; its words are above")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("demo: the server was not ready after 30 seconds")


def ask(port, key):
    """Stream one answer to the terminal; seconds to the first token, seconds in all, usage."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "stream": True, "max_tokens": 120,
            "temperature": 0, "stream_options": {"include_usage": True}}
    start, first, usage = time.monotonic(), None, None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/v1/chat/completions", json.dumps(body),
                       {"Content-Type": "application/json", "Authorization": "Bearer " + key})
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"demo: the server answered {response.status}: {response.read().decode()}")
    for line in response:
        if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise SystemExit(f"demo: {event['error']['message']}")
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                first = first or time.monotonic() - start
                print(text, end="", flush=True)
    print(flush=True)
    return first, time.monotonic() - start, usage


def report(program, home, tenant, first, total, usage):
    # The charge is posted when the socket has taken the last byte, which may be a moment after we have read it.
    for _ in range(100):
        bill = unkai(program, home, "usage", tenant, "--json")
        if bill["requests"]:
            break
        time.sleep(0.05)
    out = usage["completion_tokens"]
    print(f"""
time to first token  {1000 * first:.0f} ms
speed                {(out - 1) / max(total - first, 1e-9):.0f} tokens/s
tokens               {usage['prompt_tokens']} in, {out} out
charge               {bill['charged']} {bill['currency']}
remaining credit     {bill['available']} {bill['currency']}""")


def by_hand(port, key):
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]})
    print(f"""
The same by hand, with curl:
  curl http://127.0.0.1:{port}/v1/chat/completions \\
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{body}'
and with the official Python client:
  from openai import OpenAI
  client = OpenAI(base_url="http://127.0.0.1:{port}/v1", api_key="{key}")
  print(client.chat.completions.create(model="{MODEL}", messages=[{{"role": "user", "content": "{QUESTION}"}}]))""", flush=True)


def serve_on(server):
    print("\nStill serving; Ctrl-C ends it.", flush=True)
    try:
        server.wait()
    except KeyboardInterrupt:
        print()
    else:
        raise SystemExit("demo: the server ended; its words are above")


def main():
    program, model, keep = sys.argv[1], sys.argv[2], "--keep" in sys.argv[3:]
    for s in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(s, lambda *_: sys.exit(1))
    home, server, port = tempfile.mkdtemp(prefix="unkai-demo-"), None, free_port()
    try:
        print(f"== a tenant with 1000 JPY of credit and a key; books in {home}", flush=True)
        tenant = unkai(program, home, "tenant", "create", "demo", "--credit", "1000", "--currency", "JPY", "--json")["name"]
        unkai(program, home, "price", "set", MODEL, "--input", "0.15", "--cached", "0.075", "--output", "0.6", "--currency", "JPY",
              "--json")
        key = unkai(program, home, "key", "create", tenant, "--json")["key"]
        print(f"== serving {pathlib.Path(model).name} on http://127.0.0.1:{port}", flush=True)
        server = subprocess.Popen([program, "serve", "--listen", f"127.0.0.1:{port}", "--model", f"{MODEL}={model}"],
                                  env={**os.environ, "UNKAI_HOME": home}, start_new_session=True)
        wait_until_healthy(server, port)
        print(f"== asking: {QUESTION}\n", flush=True)
        first, total, usage = ask(port, key)
        report(program, home, tenant, first, total, usage)
        by_hand(port, key)
        if keep:
            serve_on(server)
        else:
            print("\n./run demo --keep leaves the server running for that.", flush=True)
    except KeyboardInterrupt:
        print()
        sys.exit(130)
    finally:
        if server is not None and server.poll() is None:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
