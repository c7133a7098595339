"""The API with the official client: every parameter, streams, errors, and the bill."""
import json
import os
import sys
import time

import openai
import pytest

from server import GEMMA, SMOL, Server

PROGRAM = os.environ["UNKAI_PROGRAM"]
pytestmark = pytest.mark.skipif(not SMOL.exists() or not GEMMA.exists(), reason=f"the models are not in {SMOL.parent}")
ASK = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture(scope="module")
def server():
    s = Server(PROGRAM, {"smol": SMOL, "org/gemma:3": GEMMA}).start()
    yield s
    code = s.stop()
    told = s.unkai("ledger", "verify")
    log = s.log.read_text()
    s.close()
    assert code == 0, log
    assert "balances" in told


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=server.key, max_retries=0)


def test_chat(client):
    r = client.chat.completions.create(model="smol", messages=ASK, max_tokens=12, temperature=0)
    assert r.id.startswith("chatcmpl-") and r.object == "chat.completion" and r.model == "smol"
    assert r.choices[0].finish_reason == "length" and r.choices[0].message.role == "assistant"
    assert r.usage.completion_tokens == 12 and r.usage.total_tokens == r.usage.prompt_tokens + 12
    assert r.choices[0].message.content and abs(r.created - time.time()) < 60


def test_stream_equals_whole(client):
    args = dict(model="smol", messages=ASK, max_tokens=24, temperature=0)
    whole = client.chat.completions.create(**args).choices[0].message.content
    chunks = list(client.chat.completions.create(**args, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole
    assert chunks[-1].usage.completion_tokens == 24 and chunks[-1].choices == []
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert all(c.usage is None for c in chunks[:-1]) and len({c.id for c in chunks}) == 1


def test_stream_without_usage_ends_with_done(server):
    _, headers, body = server.post({"model": "smol", "prompt": "Hi", "max_tokens": 3, "stream": True},
                                   more="Connection: close\r\n")
    assert headers["content-type"].startswith("text/event-stream")
    assert b"data: [DONE]\n\n" in body and b'"usage"' not in body


def test_several_models_at_once(client):
    a = client.completions.create(model="smol", prompt="The capital of France is", max_tokens=4, temperature=0, stream=True)
    b = client.completions.create(model="org/gemma:3", prompt="The capital of France is", max_tokens=4, temperature=0, stream=True)
    texts = ["".join(c.choices[0].text for c in s) for s in (a, b)]
    assert "Paris" in texts[0] and texts[1] and texts[0] != texts[1], texts


def test_prompt_forms(client):
    one = client.completions.create(model="smol", prompt="Hello world", max_tokens=4, temperature=0)
    two = client.completions.create(model="smol", prompt=["Hello world", "Hello world"], max_tokens=4, temperature=0)
    assert [c.text for c in two.choices] == [one.choices[0].text] * 2 and [c.index for c in two.choices] == [0, 1]
    assert two.usage.prompt_tokens == 2 * one.usage.prompt_tokens
    ids = [1, 2, 3]
    r = client.completions.create(model="smol", prompt=ids, max_tokens=1)
    assert r.usage.prompt_tokens == 3
    r = client.completions.create(model="smol", prompt=[ids, ids + ids], max_tokens=1)
    assert r.usage.prompt_tokens == 9 and len(r.choices) == 2


def test_text_parts(client):
    parts = [{"role": "user", "content": [{"type": "text", "text": "Why is the"}, {"type": "text", "text": " sky blue?"}]}]
    r = client.chat.completions.create(model="smol", messages=parts, max_tokens=2)
    assert r.usage.prompt_tokens > 5


def test_n_and_seed(client):
    args = dict(model="smol", messages=ASK, max_tokens=8, temperature=1, seed=7, n=3, extra_body={"ignore_eos": True})
    a, b = (client.chat.completions.create(**args) for _ in range(2))
    assert [c.message.content for c in a.choices] == [c.message.content for c in b.choices]
    assert len({c.message.content for c in a.choices}) > 1 and a.usage.completion_tokens == 24
    seen = {}
    for c in client.chat.completions.create(**args, stream=True):
        for choice in c.choices:
            seen[choice.index] = seen.get(choice.index, "") + (choice.delta.content or "")
    assert [seen[i] for i in range(3)] == [c.message.content for c in a.choices]


def test_stop_straddles_tokens(client):
    whole = client.completions.create(model="smol", prompt="Count: one, two,", max_tokens=20, temperature=0).choices[0].text
    for at in (3, 7, 11):
        stop = whole[at:at + 5]
        want = whole[:whole.index(stop)]
        r = client.completions.create(model="smol", prompt="Count: one, two,", max_tokens=20, temperature=0, stop=[stop, "\0never"])
        assert r.choices[0].text == want and r.choices[0].finish_reason == "stop"
        streamed = client.completions.create(model="smol", prompt="Count: one, two,", max_tokens=20, temperature=0, stop=stop, stream=True)
        assert "".join(c.choices[0].text for c in streamed) == want


def test_what_might_have_become_a_stop_string_is_delivered(client):
    """Held back as long as a stop string may come of it: when the model ends instead, the last text comes without a token."""
    args = {"model": "smol", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 60, "temperature": 0}
    plain = client.chat.completions.create(**args).choices[0]
    assert plain.finish_reason == "stop", "the model must end by itself here"
    tail = plain.message.content[-4:]
    held = client.chat.completions.create(**args, stop=[tail + "\0never"])
    assert held.choices[0].message.content == plain.message.content
    chunks = client.chat.completions.create(**args, stop=[tail + "\0never"], stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == plain.message.content


def test_sampling_parameters_are_taken(client):
    extra = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2, "ignore_eos": True}
    r = client.chat.completions.create(model="smol", messages=ASK, max_tokens=6, temperature=0.7, top_p=0.9, presence_penalty=0.5,
                                       frequency_penalty=-0.5, user="me", extra_body=extra)
    assert r.usage.completion_tokens == 6


def test_logit_bias_forces_a_token(client):
    r = client.completions.create(model="smol", prompt="A", max_tokens=3, temperature=0, logit_bias={"100": 100}, logprobs=0)
    assert len(set(r.choices[0].logprobs.tokens)) == 1


def test_chat_logprobs(client):
    r = client.chat.completions.create(model="smol", messages=ASK, max_tokens=3, temperature=0, logprobs=True, top_logprobs=4)
    content = r.choices[0].logprobs.content
    assert len(content) == 3 and all(len(t.top_logprobs) == 4 and t.logprob <= 0 for t in content)
    assert bytes(b for t in content for b in t.bytes).decode() == r.choices[0].message.content
    assert all(t.token == t.top_logprobs[0].token for t in content)


def test_completion_logprobs_and_echo(client):
    r = client.completions.create(model="smol", prompt="The capital of France is", max_tokens=3, temperature=0, logprobs=2, echo=True)
    c = r.choices[0]
    assert c.text.startswith("The capital of France is") and "".join(c.logprobs.tokens) == c.text
    assert len(c.logprobs.tokens) == r.usage.total_tokens and c.logprobs.token_logprobs[0] is None
    assert all(p < 0 for p in c.logprobs.token_logprobs[1:]) and c.logprobs.text_offset[-1] < len(c.text)
    # The token itself is among the tops, however unlikely it was.
    for token, value, top in list(zip(c.logprobs.tokens, c.logprobs.token_logprobs, c.logprobs.top_logprobs))[1:]:
        assert top[token] == value and len(top) in (2, 3)


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_is_scored_without_an_answer(server, client, stream):
    """As evaluations ask: echo, logprobs and no token more. None is counted, and none is charged."""
    mine = openai.OpenAI(base_url=str(client.base_url), api_key=server.tenant(f"scorer-{stream}", "10"), max_retries=0)
    prompts = ["The capital of France is Paris", "The capital of France is blue"]
    args = dict(model="smol", prompt=prompts, temperature=0, logprobs=1, echo=True)
    full = client.completions.create(**args, max_tokens=1)
    r = mine.completions.create(**args, max_tokens=0, stream=stream, **({"stream_options": {"include_usage": True}} if stream else {}))
    parts = list(r) if stream else [r]
    for i, prompt in enumerate(prompts):
        mine_here = [c for p in parts for c in p.choices if c.index == i]
        assert "".join(c.text for c in mine_here) == prompt and mine_here[-1].finish_reason == "length"
        scores = [x for c in mine_here for x in c.logprobs.token_logprobs]
        assert scores == full.choices[i].logprobs.token_logprobs[:-1]
    assert parts[-1].usage.completion_tokens == 0 and parts[-1].usage.prompt_tokens == full.usage.prompt_tokens
    server.settle()
    usage = json.loads(server.unkai("usage", f"scorer-{stream}", "--json"))
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (full.usage.prompt_tokens, 0)


def test_models(client):
    assert [m.id for m in client.models.list()] == ["smol", "org/gemma:3"]
    assert client.models.retrieve("smol").id == "smol"
    assert client.models.retrieve("smol").status == {"value": "loaded"}
    assert client.models.retrieve("org/gemma:3").id == "org/gemma:3"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("../../etc/passwd")


def test_control_tokens_in_text_stay_text(client):
    def count(text):
        return client.chat.completions.create(model="smol", messages=[{"role": "user", "content": text}],
                                              max_tokens=1).usage.prompt_tokens
    # As a control token it would be one.
    assert count("a<|im_end|>b") - count("ab") >= 4
    plain = client.completions.create(model="smol", prompt="<|im_end|>", max_tokens=1).usage.prompt_tokens
    assert plain >= 4


def test_metrics_are_what_vllm_users_know(server, client):
    before = {n: server.metric(n + '{model_name="smol"') for n in ("prompt_tokens_total", "generation_tokens_total", "prefix_cache_hits_total")}
    stream = iter(client.chat.completions.create(model="smol", messages=ASK, max_tokens=400, stream=True, extra_body={"ignore_eos": True}))
    for _ in range(20):
        next(stream)
    assert server.metric("num_requests_running") == 1 and server.metric("num_requests_waiting") == 0
    assert server.metric('generation_tokens_total{model_name="smol"') - before["generation_tokens_total"] >= 15  # as they come, not at the end
    assert server.metric('prompt_tokens_total{model_name="smol"') > before["prompt_tokens_total"]
    assert list(stream)[-1].choices[0].finish_reason == "length"
    status, headers, body = server.raw(server.head("/metrics", "GET", key="", more="\r\n"))
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = body.decode().splitlines()
    kinds = dict(line.split()[2:4] for line in lines if line.startswith("# TYPE "))
    for name, kind in {"num_requests_running": "gauge", "num_requests_waiting": "gauge", "kv_cache_usage_perc": "gauge",
                       "num_preemptions_total": "counter", "spec_decode_num_draft_tokens_total": "counter",
                       "spec_decode_num_accepted_tokens_total": "counter", "prompt_tokens_total": "counter", "generation_tokens_total": "counter",
                       "prefix_cache_queries_total": "counter", "prefix_cache_hits_total": "counter", "request_success_total": "counter",
                       "time_to_first_token_seconds": "histogram", "inter_token_latency_seconds": "histogram",
                       "time_per_output_token_seconds": "histogram", "e2e_request_latency_seconds": "histogram",
                       "request_queue_time_seconds": "histogram", "request_inference_time_seconds": "histogram",
                       "request_prefill_time_seconds": "histogram", "request_decode_time_seconds": "histogram",
                       "request_prompt_tokens": "histogram", "request_generation_tokens": "histogram"}.items():
        assert kinds["unkai_" + name] == kind
        rows = {"unkai_" + name} if kind != "histogram" else {f"unkai_{name}_{end}" for end in ("bucket", "sum", "count")}
        for model in ("smol", "org/gemma:3"):
            assert {line.split("{")[0] for line in lines if f'model_name="{model}"' in line} >= rows
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    for key in values:
        if 'le="+Inf"' in key:
            assert values[key] == values[key.replace("_bucket", "_count").replace(',le="+Inf"', "")]
    assert len(values) == len([line for line in lines if not line.startswith("#")])  # no series twice


def test_the_bill_is_what_was_delivered(server, client):
    key = server.tenant("billed", "10")
    mine = openai.OpenAI(base_url=str(client.base_url), api_key=key, max_retries=0)
    r = mine.chat.completions.create(model="smol", messages=ASK, max_tokens=40, temperature=0)
    server.settle()
    usage = json.loads(server.unkai("usage", "billed", "--json"))
    assert usage["requests"] == 1 and usage["completion_tokens"] == r.usage.completion_tokens
    assert usage["prompt_tokens"] == r.usage.prompt_tokens


def test_no_credit_is_402(server):
    key = server.tenant("poor", "0.001")
    status, _, body = server.post({"model": "smol", "prompt": "Hi", "max_tokens": 500}, key=key)
    assert status == 402 and json.loads(body)["error"]["type"] == "insufficient_quota"


def test_credit_shortens_an_open_answer(server):
    key = server.tenant("modest", "0.05")  # 125 tokens of output, and a context of thousands
    status, _, body = server.post({"model": "smol", "messages": ASK, "temperature": 0}, "/v1/chat/completions", key=key)
    assert status == 200 and 0 < json.loads(body)["usage"]["completion_tokens"] < 125


@pytest.mark.parametrize("change, param, status", [
    ({"model": "none"}, "model", 404), ({"model": 3}, "model", 400), ({"model": "../../etc/passwd"}, "model", 404),
    ({"max_tokens": 0}, "max_tokens", 400), ({"max_tokens": "5"}, "max_tokens", 400), ({"max_tokens": 10**9}, "max_tokens", 400),
    ({"max_tokens": -1}, "max_tokens", 400), ({"n": 10**9}, "n", 400), ({"n": 0}, "n", 400), ({"n": 1.5}, "n", 400),
    ({"temperature": 2.1}, "temperature", 400), ({"temperature": "hot"}, "temperature", 400), ({"top_p": 0}, "top_p", 400),
    ({"top_p": 1.1}, "top_p", 400), ({"top_k": -2}, "top_k", 400), ({"min_p": 2}, "min_p", 400), ({"seed": "x"}, "seed", 400),
    ({"presence_penalty": 3}, "presence_penalty", 400), ({"frequency_penalty": -3}, "frequency_penalty", 400),
    ({"repetition_penalty": 0}, "repetition_penalty", 400), ({"stop": [""]}, "stop", 400), ({"stop": 4}, "stop", 400),
    ({"stop": ["a"] * 17}, "stop", 400), ({"logit_bias": []}, "logit_bias", 400), ({"logit_bias": {"x": 1}}, "logit_bias", 400),
    ({"logit_bias": {"1": 101}}, "logit_bias", 400), ({"logit_bias": {"99999999": 1}}, "logit_bias", 400),
    ({"logit_bias": {str(i): 1 for i in range(5000)}}, "logit_bias", 400), ({"logprobs": True}, "logprobs", 400),
    ({"logprobs": 21}, "logprobs", 400), ({"best_of": 2}, "best_of", 400), ({"suffix": "x"}, "suffix", 400),
    ({"stream": "yes"}, "stream", 400), ({"stream_options": {"include_usage": True}}, "stream_options", 400),
    ({"echo": 1}, "echo", 400), ({"user": 5}, "user", 400), ({"prompt": None}, "prompt", 400), ({"prompt": []}, "prompt", 400),
    ({"prompt": [1, "a"]}, "prompt", 400), ({"prompt": [[]]}, "prompt", 400), ({"prompt": [-1]}, "prompt", 400),
    ({"prompt": [10**8]}, "prompt", 400), ({"prompt": "word " * 20000}, "prompt", 400), ({"prompt": ["x"] * 100}, "prompt", 400),
])
def test_completion_errors(server, change, param, status):
    got, _, body = server.post({"model": "smol", "prompt": "Hi", "max_tokens": 2, **change})
    error = json.loads(body)["error"]
    assert (got, error["param"]) == (status, param), error
    assert error["message"] and "type" in error and "code" in error
    if status == 404:
        assert error["code"] == "model_not_found"


@pytest.mark.parametrize("change, param", [
    ({"messages": []}, "messages"), ({"messages": "hi"}, "messages"), ({"messages": [4]}, "messages[0]"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"), ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": ASK + [{"role": "tool", "content": "x"}]}, "messages[1].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
    ({"tools": [{"type": "function"}]}, "tools"), ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"top_logprobs": 3}, "top_logprobs"), ({"logprobs": 3}, "logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"), ({"max_completion_tokens": 10**7}, "max_completion_tokens"),
    ({"max_tokens": 0, "echo": True}, "max_tokens"), ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
])
def test_chat_errors(server, change, param):
    status, _, body = server.post({"model": "smol", "messages": ASK, **change}, "/v1/chat/completions")
    assert (status, json.loads(body)["error"]["param"]) == (400, param), body


def test_harmless_fields_are_ignored(server):
    more = {"tools": [], "functions": None, "response_format": {"type": "text"}, "service_tier": "auto", "x": {"y": 1}, "stop": None,
            "n": None, "temperature": None, "stream": False, "stream_options": None, "logit_bias": {}}
    status, _, body = server.post({"model": "smol", "messages": ASK, "max_completion_tokens": 2, "ignore_eos": True, **more}, "/v1/chat/completions")
    assert status == 200 and json.loads(body)["usage"]["completion_tokens"] == 2


def test_a_model_without_a_template_says_so(server):
    status, _, body = server.post({"model": "org/gemma:3", "messages": ASK}, "/v1/chat/completions")
    assert status == 400 and "template" in json.loads(body)["error"]["message"]


if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
