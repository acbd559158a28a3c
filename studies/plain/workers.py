"""Processes of this machine that answer one question each at a time, forked before any thread.

It knows no question. Nothing here starts a thread, so no lock can be held at the fork; a worker
whose parent is gone, however it ended, reads the end of its pipe and ends too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from signal import SIG_BLOCK, SIG_SETMASK, SIG_UNBLOCK, pthread_sigmask
from typing import Any, Generic, TypeVar

from studies.plain.errors import UserError
from studies.plain.stopping import SIGNALS, deaf

Question = TypeVar("Question")
Answer = TypeVar("Answer")
#: How long a worker that was told to end may take before it is killed.
END_SECONDS = 0.5


class Workers(Generic[Question, Answer]):
    """Running workers and the pipe to each."""

    def __init__(self, processes: Sequence[BaseProcess], pipes: Sequence[Connection]) -> None:
        self.processes, self.pipes = tuple(processes), tuple(pipes)
        self._late: set[Connection] = set()  # still at work for a caller that left

    def map(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """The answers in the order of the questions; a worker gets the next when it is free, and
        only then it is taken.

        What a worker raises is raised here. `UserError` if a worker was killed.
        """
        answers: dict[int, Answer] = {}
        asked: dict[Any, int] = {}
        free = [pipe for pipe in self.pipes if pipe not in self._late]
        left, following = iter(questions), 0
        try:
            for number in count():
                while number not in answers:
                    for question in islice(left, len(free)):
                        asked[free[-1]] = following
                        self._send(free.pop(), question)
                        following += 1
                    if number == following and free:
                        return
                    for pipe in wait([*asked, *self._late]):
                        answer = self._receive(pipe)
                        if pipe in asked:
                            answers[asked.pop(pipe)] = answer
                        self._late.discard(pipe)  # type: ignore[arg-type]
                        free.append(pipe)  # type: ignore[arg-type]
                yield answers.pop(number)
        finally:
            self._late.update(asked)

    def _send(self, pipe: Connection, question: Question) -> None:
        with suppress(BrokenPipeError):  # the answer will not come, and say so
            pipe.send(question)

    def _receive(self, pipe: Any) -> Answer:
        try:
            answer, error = pipe.recv()
        except (EOFError, ConnectionResetError) as gone:
            process = self.processes[self.pipes.index(pipe)]
            process.join(END_SECONDS)
            raise UserError(f"a worker process ended (exit code {process.exitcode}), perhaps for "
                            "want of memory; take fewer with --workers.") from gone
        if error is not None:
            raise error
        return answer


@contextmanager
def forked(answer: Callable[[Question], Answer], count: int) -> Iterator[Workers[Question, Answer]]:
    """`count` workers that hold `answer` and all it refers to as they are now."""
    context = get_context("fork")
    pairs = [context.Pipe() for _ in range(count)]
    parent = os.getpid()
    processes = [context.Process(target=_work, args=(answer, pairs, index, parent), daemon=True)
                 for index in range(count)]
    try:
        # A signal that comes between the fork and `deaf` waits.
        before = pthread_sigmask(SIG_BLOCK, SIGNALS)
        try:
            for process in processes:
                process.start()
        finally:
            pthread_sigmask(SIG_SETMASK, before)
        for _, theirs in pairs:
            theirs.close()
        yield Workers(processes, [mine for mine, _ in pairs])
    finally:
        for mine, theirs in pairs:
            mine.close()
            theirs.close()
        started = [process for process in processes if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join(END_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()


def _work(answer: Callable[[Any], Any], pairs: Sequence[tuple[Connection, Connection]],
          index: int, parent: int) -> None:
    """The life of a worker: an answer for every question until the pipe ends."""
    deaf()
    pthread_sigmask(SIG_UNBLOCK, SIGNALS)
    for number, (mine, theirs) in enumerate(pairs):
        mine.close()  # else the pipe would outlive the parent
        if number != index:
            theirs.close()
    pipe = pairs[index][1]
    while os.getppid() == parent:
        try:
            question = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            reply: tuple[Any, Exception | None] = (answer(question), None)
        except Exception as error:
            reply = (None, error)
        with suppress(BrokenPipeError):
            pipe.send(reply)
