"""The official `openai` client for Python against a server: python openai_client.py BASE-URL MODEL, in an environment that has it.
One line per case: "pass NAME" or "fail NAME: why". real_engines_test.py runs it."""
import concurrent.futures
import sys

import openai

base_url, model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url + "/v1", api_key="none", max_retries=0, timeout=60)
MESSAGES = [{"role": "user", "content": "Tell me about actors and messages."}]


def check(condition, why):
    if not condition:
        raise AssertionError(why)


def expect(kind, call):
    try:
        call()
    except kind as problem:
        return problem
    raise AssertionError("it was answered")


def models_are_listed():
    check(model in [m.id for m in client.models.list().data], "missing")


def whole_chat():
    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=8)
    check(answer.usage.completion_tokens == 8 and answer.choices[0].message.content, answer)


def whole_completion():
    answer = client.completions.create(model=model, prompt="The server", max_tokens=6)
    check(answer.usage.completion_tokens == 6 and answer.choices[0].text, answer)


def streamed_chat_with_usage():
    events, usage, finish = 0, None, None
    for event in client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=12, stream=True,
                                                stream_options={"include_usage": True}):
        events += 1
        usage = event.usage or usage
        if event.choices:
            finish = event.choices[0].finish_reason or finish
    check(events >= 12 and finish == "length" and usage.completion_tokens == 12, (events, finish, usage))


def streamed_completion():
    events = sum(len(event.choices) for event in client.completions.create(model=model, prompt=[300, 301, 302], max_tokens=9, stream=True))
    check(events >= 9, events)


def raw_headers_and_request_id():
    answer = client.chat.completions.with_raw_response.create(model=model, messages=MESSAGES, max_tokens=2,
                                                              extra_headers={"X-Request-Id": "from-python"})
    check(answer.headers["x-request-id"] == "from-python", dict(answer.headers))


def unknown_model_is_not_found():
    problem = expect(openai.NotFoundError, lambda: client.chat.completions.create(model="no-such-model", messages=MESSAGES, max_tokens=2))
    check(problem.code == "model_not_found", problem)


def a_prompt_that_is_too_long_is_the_engines_400():
    expect(openai.BadRequestError, lambda: client.completions.create(model=model, prompt="word " * 40_000, max_tokens=2))


def a_closed_stream_ends():
    stream = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=4_000, stream=True, extra_body={"ignore_eos": True})
    for events, _ in enumerate(stream):
        if events == 5:
            stream.close()
            return
    raise AssertionError("it ended by itself")


def twenty_streams_at_once():
    def one(i):
        return sum(len(event.choices) for event in client.completions.create(model=model, prompt=f"number {i} " * (1 + i), max_tokens=10,
                                                                             stream=True))

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        counts = list(pool.map(one, range(20)))
    check(all(count >= 10 for count in counts), counts)


failed = 0
for case in (models_are_listed, whole_chat, whole_completion, streamed_chat_with_usage, streamed_completion, raw_headers_and_request_id,
             unknown_model_is_not_found, a_prompt_that_is_too_long_is_the_engines_400, a_closed_stream_ends, twenty_streams_at_once):
    try:
        case()
        print(f"pass {case.__name__}", flush=True)
    except Exception as problem:  # whatever the client raises is the finding
        failed += 1
        text = f"{type(problem).__name__}: {problem}".replace("\n", " ")
        print(f"fail {case.__name__}: {text}", flush=True)
sys.exit(1 if failed else 0)
