"""Interrupts calls at random instants. Invariant: no call gets the response of another, no call
fails that was not interrupted, and no call hangs.

    python -m tests.interrupt [--count 100000] [--seed 0] [--kind signal ...]

Each kind of interruption runs in its own process, against a server in another process. Each
question has a unique id, which the server repeats in every part of its response. An
interrupted call may raise the interruption or an OpenAIError, or return its own response. The
tool prints a line for each kind, and exits with 1 if the invariant was broken.
"""

import argparse
import asyncio
import faulthandler
import itertools
import json
import os
import queue
import random
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import Counter, deque
from pathlib import Path

if not __package__:  # started as a file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tests import lib
from tests.wire import chunk, completion, http

# Looked up once: an interruption of the look-up would count as one of a call.
OpenAIError, RequestTimeoutError = lib.OpenAIError, lib.RequestTimeoutError
call, open_stream = lib.create_chat_completion, lib.create_chat_completion_stream

CERTIFICATE = str(Path(__file__).resolve().parent / "data" / "localhost.pem")
SLOW_SECONDS = 60.0  # a call that takes longer hangs; the timeout of the clients is longer
STILL_SECONDS = 120.0  # a thread that finishes no call for so long is stuck

# Questions, and the server that answers them

_numbers = itertools.count()


class Question:
    """A request that tells the server how to send the answer, and the text of the answer.

    `pause` is the time in the middle of the answer, in seconds; below 0, the second half is
    never sent.
    """

    def __init__(self, rng, pause=0.0):
        self.id = f"q{os.getpid()}-{next(_numbers)}"
        self.pieces = rng.choice([1, 3, 6])
        pad = rng.choice([0, 10, 300, 3000])
        framing = rng.choice(["chunked", "length"])
        shape = [framing, self.pieces, pad, rng.random(), pause]
        message = {"role": "user", "content": self.id}
        self.body = {"model": json.dumps(shape), "messages": [message]}
        self.text = "".join(pieces_of(self.id, self.pieces, pad))


def pieces_of(name, count, pad):
    return [f"{name}.{number}{'.' * pad} " for number in range(count)]


def reply_to(question):
    """The bytes of the answer, how many of them are sent before the pause, and its seconds."""
    framing, count, pad, part, pause = json.loads(question["model"])
    name = question["messages"][0]["content"]
    pieces = pieces_of(name, count, pad)
    if question.get("stream"):
        values = [*map(chunk, pieces), chunk("", finish_reason="stop")]
        body = tuple(b"data: %s\n\n" % json.dumps(value).encode() for value in values)
        body, kind = (*body, b"data: [DONE]\n\n"), "text/event-stream"
    else:
        whole = json.dumps(completion("".join(pieces))).encode()
        body, kind = (whole[:40], whole[40:-40], whole[-40:]), "application/json"
    headers = f"Content-Type: {kind}", f"x-request-id: {name}"
    raw = http(body, "200 OK", *headers, framing=framing)
    return raw, int(len(raw) * part), pause


class Echo(asyncio.Protocol):
    """One connection. An answer is sent to its end before the next request is read."""

    def connection_made(self, transport):
        self.transport, self.unread, self.busy = transport, b"", False

    def data_received(self, data):
        self.unread += data
        while not self.busy:
            head, blank, rest = self.unread.partition(b"\r\n\r\n")
            if not blank:
                return
            length = int(re.search(rb"(?i)content-length: *([0-9]+)", head)[1])
            if len(rest) < length:
                return
            self.unread = rest[length:]
            self.answer(json.loads(rest[:length]))

    def answer(self, question):
        raw, at, pause = reply_to(question)
        if pause == 0:
            self.transport.write(raw)
            return
        self.busy = True
        self.transport.write(raw[:at])
        if pause > 0:
            asyncio.get_running_loop().call_later(pause, self.go_on, raw[at:])

    def go_on(self, rest):
        self.busy = False
        if not self.transport.is_closing():
            self.transport.write(rest)
            self.data_received(b"")


async def serve():
    """Serve HTTP and HTTPS until standard input is closed, as it is when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)  # clients close connections all the time
    ports = []
    for tls in (None, context):
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=tls, backlog=1000)
        ports.append(server.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)  # connections may still be open


def python(*arguments, **settings):
    """Start a Python with the path of this one. Coverage does not measure it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, *arguments]
    return subprocess.Popen(command, env=environment, text=True, **settings)


class EchoServer:
    """The server in its own process; `urls` has the http:// and the https:// URL."""

    def __enter__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = python("-m", "tests.interrupt", "--serve", **pipes)
        self.ports = [int(port) for port in self.process.stdout.readline().split()]
        plain, tls = self.ports
        self.urls = [f"http://127.0.0.1:{plain}/v1", f"https://127.0.0.1:{tls}/v1"]
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


# Interruptions


class Stop(Exception):
    pass


class Halt(BaseException):
    pass


class TooLate(TimeoutError):
    """An exception of a job runner that looks like a timeout of a socket."""


INTERRUPTIONS = (Stop, Halt, TooLate, KeyboardInterrupt)


class Shared:
    """A stream that one thread reads and another closes."""

    def __init__(self, stream, delay):
        self.stream, self.delay = stream, delay
        self.closed = self.ended = False


class Run:
    """One kind of interruption: two clients, plain and TLS, shared by many threads.

    Counts are lists, since `append` can't be interrupted and takes no lock.
    """

    def __init__(self, kind, count, seed, urls):
        self.kind, self.count = kind, count
        self.rng = random.Random(f"{kind} {seed}")
        self.hits, self.wrong, self.failed, self.slow = [], [], [], []
        # Interruptions that were raised as an OpenAIError, and those that struck a `__del__`,
        # which Python does not raise.
        self.translated, self.swallowed = [], []
        self.calls = itertools.count()
        self.clients = [
            lib.OpenAIClient(base_url=url, timeout=100, max_retries=0, verify=CERTIFICATE)
            for url in urls
        ]
        self.over = threading.Event()
        self.threads = []
        self.beats = {}  # when each thread last finished a call
        self.calling = set()  # the threads that are in a call
        self.closers = queue.SimpleQueue()
        self.left = deque(maxlen=10)  # streams that were interrupted and not closed
        self.armed = 0  # interruptions still to come
        self.raised = Stop
        self.delays = None  # for the thread that sends Ctrl-C

    # Calls

    def either(self, rng):
        """One of the clients, less often the one with TLS, whose connections take long to make."""
        return self.clients[rng.random() < 0.25]

    def check(self, question, answer):
        if answer.text != question.text or answer.request_id != question.id:
            self.wrong.append(f"{question.id} got {answer.text[:60]!r} ({answer.request_id})")

    def check_begun(self, question, text):
        if not question.text.startswith(text):
            self.wrong.append(f"{question.id} began with {text[:60]!r}")

    def check_partial(self, question, error):
        if error.partial is not None:
            self.check_begun(question, error.partial.text)

    def check_again(self, question, stream):
        """An interrupted stream that is read again gives the complete answer, or an error."""
        try:
            self.check(question, stream.response())
        except OpenAIError as error:
            self.check_partial(question, error)

    def fail(self, what, error):
        chain = [error]
        while cause := chain[-1].__cause__ or chain[-1].__context__:
            chain.append(cause)
        self.failed.append(f"{what}: " + " < ".join(map(repr, chain)))

    def uninterrupted(self, rng, client=None):
        """Make a call or open a stream, and check that the answer is its own and comes in time."""
        question = Question(rng, rng.choice([0, 0, 0, 0.001]))
        client = client or self.either(rng)
        with self.timed("a call"):
            if rng.random() < 0.5:
                answer = call(client, question.body)
            else:
                answer = open_stream(client, question.body).response()
            self.check(question, answer)
        next(self.calls)

    def timed(self, what):
        return Timed(self, what)

    def spawn(self, number, function, *arguments):
        for _ in range(number):
            rng = random.Random(self.rng.random())
            thread = threading.Thread(target=self.repeat, args=(function, rng, *arguments))
            thread.daemon = True
            self.threads.append(thread)
            thread.start()

    def repeat(self, function, *arguments):
        me = threading.get_ident()
        while not self.over.is_set():
            self.beats[me] = time.monotonic()
            try:
                function(*arguments)
            except BaseException as error:
                self.fail("a thread", error)
        self.beats.pop(me)

    # By signals, in the main thread

    def arm(self, rng):
        self.raised = rng.choice([Stop, Halt, TooLate])
        if self.delays is not None:
            self.raised = KeyboardInterrupt
        self.delay = lambda: rng.uniform(1e-6, 2e-4)  # before each later interruption
        # At any time in a call, or mostly at its beginning.
        delay = rng.uniform(1e-6, 2e-3) if rng.random() < 0.5 else 10 ** rng.uniform(-6, -2.3)
        self.way = rng.randrange(5)
        self.armed = rng.choice([1, 1, 1, 2])  # a second one strikes while the first is handled
        self.again(delay)

    def again(self, delay):
        if self.delays is None:
            signal.setitimer(signal.ITIMER_REAL, delay)
        else:
            self.delays.put(delay)

    def strike(self, signum, frame):
        """Handle the signal: raise in a call, and try again later elsewhere."""
        if not self.armed:
            return
        if frame.f_code.co_filename == THIS_FILE and frame.f_code is not Run.read.__code__:
            self.again(self.delay())
            return
        self.armed -= 1
        self.hits.append(signum)
        if self.armed:
            self.again(self.delay())
        raise self.raised("interrupted")

    def send_interrupts(self):
        """Send Ctrl-C to the main thread after each delay, unless a newer one was set."""
        main = threading.main_thread().ident
        while (delay := self.delays.get()) is not None:
            time.sleep(delay)
            if self.delays.empty():
                signal.pthread_kill(main, signal.SIGINT)

    def struck(self, rng):
        """Make a call or a stream that is usually interrupted; then, at times, one that is not."""
        question = Question(rng, rng.choice([0, 0, 0.0005, 0.002]))
        client = self.either(rng)
        if rng.random() < 0.2:
            client = client.with_options(deadline=300)
        before = len(self.hits)
        with self.timed("an interrupted call"):
            self.arm(rng)
            try:
                self.strike_at(rng, client, question)
            finally:
                self.armed = 0
        if len(self.hits) == before:
            next(self.calls)
        if rng.random() < 0.25:
            self.uninterrupted(rng, client)

    def strike_at(self, rng, client, question):
        opened, errors = [], []
        before = len(self.hits)
        try:
            if rng.random() < 0.4:
                self.check(question, call(client, question.body))
            else:
                opened.append(open_stream(client, question.body))
                self.read(question, opened[0])
        except INTERRUPTIONS:
            pass
        except OpenAIError as error:
            if len(self.hits) == before:
                raise
            errors.append(error)
            if len(self.hits) == before + 1 and self.raised is not TooLate:
                self.translated.append(repr(error))
        for _ in range(2):  # the second interruption may come here
            try:
                for error in errors:
                    self.check_partial(question, error)
                if opened:
                    self.leave(question, opened)
                break
            except INTERRUPTIONS:
                pass

    def read(self, question, stream):
        text = ""
        for piece in stream:
            text += piece.text
            self.check_begun(question, text)
        self.check(question, stream.response())

    def leave(self, question, opened):
        """Read an interrupted stream again, close it, keep it, or drop it."""
        if self.way < 2:
            self.check_again(question, opened[0])
        elif self.way == 2:
            opened[0].close()
        elif self.way == 3:
            self.left.append(opened[0])
        opened.clear()

    def run_signal(self):
        signal.signal(signal.SIGALRM, self.strike)
        self.spawn(3, self.uninterrupted)
        self.strike_until_done()

    def run_ctrl_c(self):
        signal.signal(signal.SIGINT, self.strike)
        self.delays = queue.SimpleQueue()
        sender = threading.Thread(target=self.send_interrupts, daemon=True)
        sender.start()
        self.spawn(3, self.uninterrupted)
        self.strike_until_done()
        self.delays.put(None)
        sender.join()

    def strike_until_done(self):
        me = threading.get_ident()
        while len(self.hits) < self.count:
            self.struck(self.rng)
            self.beats[me] = time.monotonic()
        if self.delays is None:
            signal.setitimer(signal.ITIMER_REAL, 0)

    # By close()

    def shared(self, rng):
        """Read a stream that another thread closes at any time."""
        question = Question(rng, rng.choice([0, 0, 0.001, 0.005]))
        client = self.either(rng)
        at = rng.choice([0, question.pieces, question.pieces + 1, rng.randrange(8)])
        delay = rng.choice([0, rng.uniform(0, 1e-3)])
        with self.timed("a closed stream"):
            stream = open_stream(client, question.body)
            shared = Shared(stream, delay)
            try:
                text = ""
                for number in itertools.count():
                    if number == at:
                        for _ in range(rng.choice([1, 1, 2])):  # by two threads at once, too
                            self.closers.put(shared)
                    if (piece := next(stream, None)) is None:
                        break
                    text += piece.text
                    self.check_begun(question, text)
                self.check(question, stream.response())
            except OpenAIError as error:
                if not shared.closed:
                    raise
                self.check_partial(question, error)
            shared.ended = True
            self.check_again(question, stream)

    def close_shared(self, rng):
        try:
            shared = self.closers.get(timeout=0.1)
        except queue.Empty:
            return
        if shared.delay:
            time.sleep(shared.delay)
        if not shared.ended:
            if not shared.closed:
                self.hits.append("close")
            shared.closed = True
        shared.stream.close()

    def run_close_stream(self):
        self.spawn(6, self.shared)
        self.spawn(4, self.close_shared)
        self.spawn(6, self.uninterrupted)
        self.wait_until_done()

    def close_client(self, rng, longest):
        time.sleep(rng.uniform(5e-5, longest))
        client = self.either(rng)
        if self.calling:
            self.hits.append("close")
        if rng.random() < 0.2:
            client = client.with_options(max_retries=1)
        client.close()

    def run_close_client(self):
        self.spawn(2, self.close_client, 3e-3)
        self.spawn(6, self.uninterrupted)
        self.wait_until_done()

    # By limits

    def limited(self, rng, clients):
        """Make a call with a short limit to a server that pauses, or never answers."""
        question = Question(rng, rng.choice([0, 0.005, rng.uniform(0, 0.03), -1]))
        client = rng.choice(clients)
        stream = None
        with self.timed("a limited call"):
            try:
                if rng.random() < 0.5:
                    answer = call(client, question.body)
                else:
                    stream = open_stream(client, question.body)
                    answer = stream.response()
                self.check(question, answer)
            except RequestTimeoutError as error:
                self.hits.append("limit")
                self.check_partial(question, error)
                if stream is not None:
                    self.check_again(question, stream)

    def clients_with(self, setting):
        """Copies of the clients that share their connections and have limits of 1 to 20 ms."""
        limits = [self.rng.uniform(0.001, 0.02) for _ in range(6)]
        values = [(10, limit) for limit in limits] if setting == "timeout" else limits
        return [one.with_options(**{setting: value}) for one in self.clients for value in values]

    def run_timeout(self):
        self.spawn(8, self.limited, self.clients_with("timeout"))
        self.spawn(3, self.uninterrupted)
        self.wait_until_done()

    def run_deadline(self):
        self.spawn(8, self.limited, self.clients_with("deadline"))
        self.spawn(3, self.uninterrupted)
        self.wait_until_done()

    # By fork

    def forked(self, rng):
        """Fork in the middle of a stream while other threads make calls; parent and child go on."""
        question = Question(rng, rng.choice([0, 0.002]))
        client = self.either(rng)
        pid = None
        with self.timed("a stream over a fork"):
            stream = open_stream(client, question.body)
            text = ""
            for piece in itertools.islice(stream, rng.randrange(4)):
                text += piece.text
            pid = os.fork()
            if pid == 0:
                self.child(rng, client, stream)
            for piece in stream:
                text += piece.text
            self.check_begun(question, text)
            self.check(question, stream.response())
            self.hits.append("fork")
        if pid is not None:
            _, status = os.waitpid(pid, 0)
            if os.WIFSIGNALED(status):
                self.slow.append(f"a child was ended by signal {os.WTERMSIG(status)}")
            elif status:
                self.failed.append("a child, as it says above")

    def child(self, rng, client, stream):
        """Check that a forked child shares no connection with its parent, and end the child."""
        faulthandler.register(signal.SIGALRM, chain=True)
        signal.alarm(20)  # ends a child that hangs
        before = len(self.wrong), len(self.failed), len(self.slow)
        try:
            way = rng.randrange(3)
            if way == 0:
                stream.close()
            elif way == 1:
                del stream
            for _ in range(2):
                self.uninterrupted(rng, client)
            found = [*self.wrong[before[0] :], *self.failed[before[1] :], *self.slow[before[2] :]]
            print(*found, sep="\n", end="", file=sys.stderr, flush=True)
            os._exit(bool(found))
        finally:
            os._exit(3)

    def run_fork(self):
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        # Over HTTP: a child can't connect by TLS if a thread held a lock of OpenSSL at the fork.
        self.spawn(2, self.uninterrupted, self.clients[0])
        me = threading.get_ident()
        while len(self.hits) < self.count:
            self.forked(self.rng)
            self.beats[me] = time.monotonic()

    # By all of these at once

    def run_everything(self):
        signal.signal(signal.SIGALRM, self.strike)
        self.spawn(2, self.uninterrupted)
        self.spawn(2, self.shared)
        self.spawn(2, self.close_shared)
        self.spawn(1, self.close_client, 0.02)
        self.spawn(2, self.limited, self.clients_with("deadline") + self.clients_with("timeout"))
        self.strike_until_done()

    # A run

    def wait_until_done(self):
        me = threading.get_ident()
        while len(self.hits) < self.count:
            time.sleep(0.01)
            self.beats[me] = time.monotonic()

    def warm_up(self):
        """Make all late imports, so that no interruption strikes one."""
        for client in self.clients:
            self.uninterrupted(self.rng, client)
            for short in (client.with_options(timeout=0.01), client.with_options(deadline=0.01)):
                for function in (call, open_stream):
                    try:
                        for _ in function(short, Question(self.rng, -1).body):
                            pass
                    except RequestTimeoutError:
                        pass
        refused = self.clients[0].with_options(base_url="http://127.0.0.1:1/v1")
        try:
            call(refused, {"model": "m", "messages": []})
        except lib.HTTPError:
            pass

    def watch(self):
        """End this process when a thread hangs, or when no interruption comes any more."""
        hits, last_hit = 0, time.monotonic()
        while not self.over.wait(1):
            faulthandler.dump_traceback_later(2 * STILL_SECONDS, exit=True)
            now = time.monotonic()
            if len(self.hits) > hits:
                hits, last_hit = len(self.hits), now
            if now - min(self.beats.values(), default=now) > STILL_SECONDS:
                faulthandler.dump_traceback(sys.stderr)
                self.slow.append("a thread that is stuck, as it says above")
            elif now - last_hit > 2 * STILL_SECONDS:
                self.slow.append(f"no interruption after the first {hits}")
            else:
                continue
            self.report()
            os._exit(1)

    def unraisable(self, told):
        """Count an error of a `__del__` if it is the library's.

        Python drops an interruption that strikes a `__del__`, and one that strikes its own
        constructors or `Thread.start` makes those fail.
        """
        if isinstance(told.exc_value, INTERRUPTIONS):
            self.swallowed.append(repr(told.object))
            return
        modules = [f.f_globals["__name__"] for f, _ in traceback.walk_tb(told.exc_traceback)]
        if any(name.partition(".")[0] == lib.name for name in modules):
            self.fail(f"a __del__ ({told.err_msg})", told.exc_value)

    def report(self):
        counts = {
            "kind": self.kind,
            "interruptions": len(self.hits),
            "calls": next(self.calls),
            "wrong": len(self.wrong),
            "failed": len(self.failed),
            "hangs": len(self.slow),
            "translated": len(self.translated),
            "swallowed": len(self.swallowed),
            "examples": [*self.wrong[:5], *self.failed[:5], *self.translated[:5], *self.slow[:5]],
        }
        print(json.dumps(counts), flush=True)

    def run(self):
        sys.setswitchinterval(1e-5)
        warnings.simplefilter("ignore", ResourceWarning)  # a second interruption may leave a socket
        sys.unraisablehook = self.unraisable
        threading.excepthook = lambda told: self.fail("a thread", told.exc_value)
        self.warm_up()
        self.beats[threading.get_ident()] = time.monotonic()
        watcher = threading.Thread(target=self.watch, daemon=True)
        watcher.start()
        getattr(self, f"run_{self.kind}")()
        self.uninterrupted(self.rng, self.clients[0])
        self.uninterrupted(self.rng, self.clients[1])
        self.over.set()
        for thread in [*self.threads, watcher]:
            thread.join(STILL_SECONDS)
            if thread.is_alive():
                self.slow.append("a thread that does not end")
        faulthandler.dump_traceback_later(STILL_SECONDS, exit=True)  # if the process does not end
        for client in self.clients:
            client.close()
        self.report()


class Timed:
    """A `with` block for calls: an exception is a failure, and a long time is a hang."""

    def __init__(self, run, what):
        self.run, self.what = run, what

    def __enter__(self):
        self.begun = time.monotonic()
        self.run.calling.add(threading.get_ident())

    def __exit__(self, kind, error, traceback):
        self.run.calling.discard(threading.get_ident())
        seconds = time.monotonic() - self.begun
        if seconds > SLOW_SECONDS:
            self.run.slow.append(f"{self.what} took {seconds:.1f} s, then {error!r}")
        elif error is not None:
            self.run.fail(self.what, error)
        return True


THIS_FILE = Run.run.__code__.co_filename

# The number of each kind among a hundred interruptions.
KINDS = {
    "signal": 26,
    "ctrl_c": 16,
    "close_stream": 12,
    "close_client": 12,
    "timeout": 8,
    "deadline": 10,
    "fork": 2,
    "everything": 14,
}
NEEDED = {
    "signal": (signal, "setitimer"),
    "ctrl_c": (signal, "pthread_kill"),
    "fork": (os, "fork"),
    "everything": (signal, "setitimer"),
}


def can(kind):
    """Whether this system has this kind of interruption."""
    module, name = NEEDED.get(kind, (os, "getpid"))
    return hasattr(module, name)


def run(kind, count, seed, server):
    """Interrupt calls `count` times in another process; return its counts.

    `broken` counts how often the invariant was broken; `examples` has the first cases.
    """
    arguments = ["-m", "tests.interrupt", "--run", kind, str(count), str(seed), *server.urls]
    with python(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate()  # its watcher ends it when it hangs
    told = out.strip().splitlines()
    counts = Counter(json.loads(told[-1]) if told else {"examples": []})
    if process.returncode and not counts["hangs"]:  # it hung at its end, or died
        counts["hangs"] = 1
    counts["broken"] = sum(counts[key] for key in ("wrong", "failed", "translated", "hangs"))
    if counts["broken"]:
        counts["examples"] += [line for line in err.splitlines() if line]
    return counts


def main():
    if sys.argv[1:2] == ["--serve"]:
        return asyncio.run(serve())
    if sys.argv[1:2] == ["--run"]:
        kind, count, seed, *urls = sys.argv[2:]
        return Run(kind, int(count), seed, urls).run()
    parser = argparse.ArgumentParser(description="Interrupt calls at random instants.")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=[*filter(can, KINDS)])
    options = parser.parse_args()
    share = options.count / sum(KINDS[kind] for kind in options.kind)
    total = Counter()
    with EchoServer() as server:
        for kind in options.kind:
            started = time.monotonic()
            counts = run(kind, round(share * KINDS[kind]), options.seed, server)
            total.update({key: value for key, value in counts.items() if type(value) is int})
            print(line(kind, counts, started), flush=True)
            for example in counts["examples"]:
                print("   ", example, file=sys.stderr)
    print(line("total", total))
    return 1 if total["broken"] else 0


def line(name, counts, started=None):
    told = ", ".join(
        f"{counts[key]} {key}"
        for key in ("interruptions", "wrong", "failed", "translated", "hangs")
    )
    more = f"{counts['swallowed']} swallowed"
    took = "" if started is None else f", {time.monotonic() - started:.0f} s"
    return f"{name:13} {told} ({counts['calls']} other calls; {more}{took})"


if __name__ == "__main__":
    sys.exit(main())
