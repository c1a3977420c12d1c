"""One function, many at once: threads, processes, and clusters that pickle what they send."""

import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_all_start_methods, get_context

import pytest

from . import lib
from .wire import http


def request_for(question):
    return lib.CreateChatCompletionRequest(
        model="m", messages=[lib.ChatMessage.user(question)], temperature=0.5, extra={"top_k": 4}
    )


QUESTIONS = [f"Question {number}" for number in range(12)]


def echo(body):
    return f"You said: {body['messages'][-1]['content']}"


POOLS = [
    pytest.param(partial(ThreadPoolExecutor, 4), id="threads"),
    *(
        pytest.param(
            partial(ProcessPoolExecutor, 2, get_context(how)),
            id=f"processes-{how}",
            marks=[] if how == "fork" else [pytest.mark.gate, pytest.mark.versions],
        )
        for how in get_all_start_methods()
    ),
]
# Python warns of a fork beside threads. The server is one; that the child works is the point.
may_fork = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@may_fork
@pytest.mark.parametrize("pool", POOLS)
def test_the_same_function_runs_in_any_pool(pool):
    with lib.OfflineServer([echo] * len(QUESTIONS)) as server:
        client = lib.OpenAIClient("sk-key", base_url=server.url, headers={"X-Team": "ice"})
        ask = partial(lib.create_chat_completion, client)
        with client, pool() as workers:
            answers = list(workers.map(ask, map(request_for, QUESTIONS)))
        sent = server.requests
    assert [answer.text for answer in answers] == [f"You said: {one}" for one in QUESTIONS]
    assert all(type(answer) is lib.CreateChatCompletionResponse for answer in answers)
    assert all(answer.request_id and answer.headers for answer in answers)
    assert sorted(one.body["messages"][0]["content"] for one in sent) == sorted(QUESTIONS)
    assert all(one.headers["authorization"] == "Bearer sk-key" for one in sent)
    assert all((one.headers["x-team"], one.body["top_k"]) == ("ice", 4) for one in sent)


@may_fork
@pytest.mark.parametrize("pool", POOLS)
def test_an_error_comes_back_from_any_pool_as_it_was_raised(ask, pool):
    told = {"error": {"message": "no such model", "code": "model_not_found"}}
    refusal = http(told, "404 Not Found", "x-request-id: req-7")
    with pool() as workers:
        task = partial(lib.create_chat_completion, ask(refusal))
        error = workers.submit(task, request_for("Hi")).exception()
    assert type(error) is lib.NotFoundError
    assert (error.status_code, error.code, error.request_id) == (404, "model_not_found", "req-7")
    assert error.headers["X-Request-Id"] == "req-7"
    assert "sk-secret-key" not in str(error)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_sent_to_a_worker_pickles(protocol):
    client = lib.OpenAIClient("sk-key", base_url="http://localhost:1/v1", timeout=(1, 2))
    task = partial(lib.create_chat_completion, client.with_options(max_retries=5), into=dict)
    request = request_for("Hi")
    again, same = pickle.loads(pickle.dumps((task, request), protocol))
    assert again.func is lib.create_chat_completion
    assert (again.args[0].base_url, again.args[0].max_retries) == (client.base_url, 5)
    assert same == request
    assert same.to_dict() == request.to_dict()
