"""Many small questions for embeddings as a few large ones, and no text twice.

Texts that are asked for while requests are under way gather, and go out together with the next one; with nothing under way a text
goes out at once. Vectors are kept by the text's hash, the latest used ones, up to a number of bytes.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from serve_app.domain.usage import Usage
from serve_app.embeddings.port import Embeddings, Vectors
from serve_app.errors import InvalidInput

MAX_BATCH = 256
MAX_BATCH_CHARS = 400_000
"""A provider's bound is in tokens (OpenAI's: 300,000); there are never more of them than characters, and rarely a third."""
MAX_REQUESTS = 4
"""Under way at once."""
MAX_KEPT_BYTES = 32 * 2**20

Compute = Callable[[list[str]], Awaitable[Embeddings]]


class _Wanted:
    """A text that somebody waits for."""

    __slots__ = ("done", "key", "text")

    def __init__(self, key: bytes, text: str) -> None:
        self.key = key
        self.text = text
        self.done: asyncio.Future[tuple[Vectors, Usage]] = asyncio.get_running_loop().create_future()


class Batches:
    """``compute`` gives the vectors of a batch, or raises for all of it; a batch that is refused as invalid is asked for in
    halves, so that a text suffers for itself only. Every text is paid for by whoever asked for it first."""

    def __init__(self, compute: Compute, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self._compute = compute
        self._max_kept_bytes = max_kept_bytes
        self._kept: OrderedDict[bytes, Vectors] = OrderedDict()
        self._kept_bytes = 0
        self._wanted: dict[bytes, _Wanted] = {}
        self._line: OrderedDict[bytes, _Wanted] = OrderedDict()
        self._under_way: set[asyncio.Task[None]] = set()

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """The vectors of the texts, which have content. Raises what ``compute`` raised."""
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        found: dict[bytes, Vectors] = {}
        mine: set[bytes] = set()
        waiting: dict[bytes, _Wanted] = {}
        for key, text in zip(keys, texts, strict=True):
            if (vector := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                found[key] = vector
            elif key not in self._wanted:
                self._wanted[key] = self._line[key] = waiting[key] = _Wanted(key, text)
                mine.add(key)
            else:
                waiting[key] = self._wanted[key]
        self._start()
        usage = Usage()
        # Shielded: others may wait for the same text.
        answers = await asyncio.gather(*(asyncio.shield(one.done) for one in waiting.values()), return_exceptions=True)
        for key, answer in zip(waiting, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            found[key] = answer[0]
            if key in mine:
                usage += answer[1]
        return Embeddings(vectors=np.stack([found[key] for key in keys]), usage=usage)

    async def aclose(self) -> None:
        """Ends what is under way; whoever waits for it is cancelled."""
        for task in list(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for wanted in self._wanted.values():
            wanted.done.cancel()
        self._wanted.clear()
        self._line.clear()

    def _start(self) -> None:
        while self._line and len(self._under_way) < MAX_REQUESTS:
            # A context of its own: the batch is everybody's, and not cancelled with who came first.
            task = asyncio.create_task(self._run(self._next()), context=contextvars.Context())
            self._under_way.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            self._start()

    def _next(self) -> list[_Wanted]:
        batch: list[_Wanted] = []
        chars = 0
        while self._line and len(batch) < MAX_BATCH:
            first = next(iter(self._line.values()))
            chars += len(first.text)
            if batch and chars > MAX_BATCH_CHARS:
                break
            batch.append(first)
            del self._line[first.key]
        return batch

    async def _run(self, batch: list[_Wanted]) -> None:
        try:
            computed = await self._compute([one.text for one in batch])
            if len(computed.vectors) != len(batch):
                raise InvalidInput(f"The embedder gave {len(computed.vectors)} vectors for {len(batch)} texts.")
        except InvalidInput as error:
            if len(batch) == 1:
                self._failed(batch, error)
                return
            half = len(batch) // 2
            await self._run(batch[:half])
            await self._run(batch[half:])
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failed(batch, error)
        else:
            for one, vector, usage in zip(batch, computed.vectors, _shares(computed.usage, batch), strict=True):
                self._keep(one.key, np.array(vector, np.float32))
                self._wanted.pop(one.key, None)
                if not one.done.done():
                    one.done.set_result((vector, usage))

    def _failed(self, batch: list[_Wanted], error: BaseException) -> None:
        for one in batch:
            self._wanted.pop(one.key, None)
            if not one.done.done():
                one.done.set_exception(error)
                one.done.exception()  # whoever asked may have left

    def _keep(self, key: bytes, vector: Vectors) -> None:
        self._kept[key] = vector
        self._kept_bytes += vector.nbytes
        while self._kept_bytes > self._max_kept_bytes and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.nbytes


def _shares(usage: Usage, batch: list[_Wanted]) -> list[Usage]:
    """A batch's usage text by text, by their lengths. Together they are all of it."""
    ends, total, so_far = [], sum(len(one.text) for one in batch) or 1, 0
    for one in batch:
        so_far += len(one.text)
        ends.append(so_far / total)
    tokens = [0, *(round(usage.input_tokens * end) for end in ends)]
    costs = [0, *(round(usage.cost_microusd * end) for end in ends)]
    return [
        Usage(input_tokens=tokens[at + 1] - tokens[at], cost_microusd=costs[at + 1] - costs[at])
        for at in range(len(batch))
    ]
