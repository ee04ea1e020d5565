"""The scheduler of vLLM with a record of what it did: enqueued requests, executed steps, aborts, snapshots.

A record is a plain dict, built on the engine's thread (dict building and a bounded queue's put, nothing else); stream.py numbers it,
encodes it and sends it from a thread of its own. Records: hello, add, step, free (an end outside a step), snapshot.
"""
import collections
import functools
import logging
import os
import time

from foretoken_vllm.ids import hash_of
from foretoken_vllm.stream import Stream

now = time.monotonic_ns
MOST_BLOCKS = 32000  # of an exact snapshot: one frame holds it
_log = logging.getLogger("foretoken_vllm")


def hello_of(scheduler):
    config = scheduler.scheduler_config
    pool = scheduler.kv_cache_manager.block_pool

    def setting(name, default):
        return getattr(config, name, default)

    return {
        "type": "hello", "pid": os.getpid(), "epoch": time.time_ns(), "version": _version(),
        "instance": os.environ.get("FORETOKEN_INSTANCE", ""),
        "dp_rank": getattr(scheduler.parallel_config, "data_parallel_index", 0),
        "num_gpu_blocks": pool.num_gpu_blocks, "block_size": scheduler.block_size,
        "max_num_seqs": scheduler.max_num_running_reqs,
        "max_num_active_seqs": getattr(scheduler, "max_num_active_reqs", scheduler.max_num_running_reqs),
        "max_num_batched_tokens": scheduler.max_num_scheduled_tokens, "max_model_len": scheduler.max_model_len,
        "policy": str(getattr(config.policy, "value", config.policy)),
        "long_prefill_token_threshold": setting("long_prefill_token_threshold", 0),
        "long_prefill_token_threshold_adaptive": setting("long_prefill_token_threshold_adaptive", False),
        "watermark": setting("watermark", 0.0),
        "reserve_full_isl": getattr(scheduler, "scheduler_reserve_full_isl", False),
        "chunked_prefill": setting("enable_chunked_prefill", True),
        "prefix_caching": bool(scheduler.cache_config.enable_prefix_caching),
        "async_scheduling": _is_async(scheduler), "features": features_of(scheduler),
    }


def features_of(scheduler):
    """What is in use and not modelled: the mirror then follows instead of deciding."""
    config = scheduler.vllm_config
    found = []
    for feature, value in (
        ("speculative_decoding", getattr(config, "speculative_config", None)),
        ("lora", getattr(config, "lora_config", None)),
        ("kv_transfer", getattr(config, "kv_transfer_config", None)),
        ("multimodal", getattr(config.model_config, "is_multimodal_model", False)),
        ("pipeline_parallel", scheduler.parallel_config.pipeline_parallel_size > 1),
        ("kv_cache_groups", not _plain_cache(scheduler)),
    ):
        if value:
            found.append(feature)
    return found


def _plain_cache(scheduler):
    """One group of layers with full attention, hashed block by block: what EngineCore models."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    groups = scheduler.kv_cache_config.kv_cache_groups
    manager = scheduler.kv_cache_manager
    return (len(groups) == 1 and isinstance(groups[0].kv_cache_spec, FullAttentionSpec)
            and groups[0].kv_cache_spec.block_size == getattr(manager, "hash_block_size", scheduler.block_size) == scheduler.block_size)


def _version():
    import vllm

    return vllm.__version__


def _is_async(scheduler):
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    return isinstance(scheduler, AsyncScheduler)


def _waiting_requests(scheduler):
    """In the order in which the scheduler will look at them."""
    queues = ("kv_holding_waiting", "skipped_waiting", "waiting")
    return [r for name in queues for r in getattr(scheduler, name, ())]


def snapshot_of(tracer):
    scheduler, in_flight = tracer.scheduler, len(tracer.pending)

    def row(r):
        return (r.request_id, r.num_prompt_tokens, r.num_computed_tokens, r.num_output_tokens, tracer.cached.get(r.request_id, 0))

    waiting = [row(r) for r in _waiting_requests(scheduler)]
    return {
        "type": "snapshot", "t": now(), "seq": tracer.steps - in_flight, "inflight": in_flight,
        "running": [row(r) for r in scheduler.running], "waiting": waiting, "waiting_order": [w[0] for w in waiting],
        "free_blocks": scheduler.kv_cache_manager.block_pool.get_num_free_blocks(),
        "total_blocks": scheduler.kv_cache_manager.block_pool.num_gpu_blocks - 1,
        "exact": exact_of(tracer) if _plain_cache(scheduler) and scheduler.kv_cache_manager.block_pool.num_gpu_blocks <= MOST_BLOCKS else None,
    }


def exact_of(tracer):
    """What a fork of the scheduler needs beside the rows: blocks of every request, the free list in order, what every block holds."""
    scheduler = tracer.scheduler
    manager, pool = scheduler.kv_cache_manager.coordinator.single_type_managers[0], scheduler.kv_cache_manager.block_pool
    skipped = {r.request_id for r in getattr(scheduler, "skipped_waiting", ())}

    def detail(r):
        rid = r.request_id
        return {"id": rid, "prio": r.priority, "max_tokens": r.max_tokens, "arrival": r.arrival_time,
                "blocks": [b.block_id for b in manager.req_to_blocks.get(rid, ())], "hashes": [hash_of(h) for h in r.block_hashes],
                "registered": manager.num_cached_block.get(rid, 0), "placeholders": r.num_output_placeholders,
                "in_flight": getattr(r, "num_in_flight_tokens", 0), "stale": getattr(r, "num_stale_output_tokens", 0),
                "preempted": r.status.name == "PREEMPTED", "partial": bool(r.is_prefill_chunk), "skipped": rid in skipped}

    hashed = []
    for key, held in pool.cached_block_hash_to_block._cache.items():
        blocks = held.values() if isinstance(held, dict) else (held,)
        hashed += [(b.block_id, hash_of(key)) for b in blocks]
    live = scheduler.requests
    return {"requests": [detail(r) for r in [*scheduler.running, *_waiting_requests(scheduler)]], "hashed": hashed,
            "free_list": [b.block_id for b in pool.free_block_queue.get_all_free_blocks()],
            "in_flight": [(record["seq"], record["t_sched1"], [item for item in record["items"] if item[0] in live])
                          for _, record in tracer.pending],
            "finish_pending": bool(scheduler.finished_req_ids)}


def hashed_of(request, block_size):
    """Hashes of the blocks that a request has filled beyond those that its prompt fills alone; None: there are none."""
    hashes = request.block_hashes[request.num_prompt_tokens // block_size:]
    return {"type": "hashed", "t": now(), "id": request.request_id, "hashes": [hash_of(h) for h in hashes]} if hashes else None


def add_of(request):
    return {
        "type": "add", "t": now(), "id": request.request_id, "prompt": request.num_prompt_tokens, "max_tokens": request.max_tokens,
        "prio": request.priority, "arrival": request.arrival_time, "structured": bool(request.use_structured_output),
        "hashes": [hash_of(h) for h in request.block_hashes],
    }


def _guarded(method):
    """Runs a hook of ours; whatever goes wrong in it ends the tracing, not the server."""

    @functools.wraps(method)
    def hook(self, *args):
        if self.stream is None:
            return None
        try:
            return method(self, *args)
        except Exception as error:  # noqa: BLE001 - by design: nothing of ours may reach the engine
            self.disable(f"{method.__name__}: {type(error).__name__}: {error}")
            return None

    return hook


class Tracer:
    """What the traced scheduler notes between its steps. Every method is called on the engine's thread."""

    def __init__(self, scheduler, stream):
        self.scheduler, self.stream = scheduler, stream
        self.pending = collections.deque()  # (output, record) of each schedule() whose result has not come
        self.steps, self.previous_end, self.cost = 0, 0, 0
        self.preempted, self.ended, self.in_update = [], [], False
        self.cached = {}  # tokens found in the prefix cache at the last admission, of requests admitted at least once
        self.lag = 2 if _is_async(scheduler) else 1

    def disable(self, why):
        stream, self.stream = self.stream, None
        self.pending.clear()
        if stream is not None:
            stream.close()
            _log.error("foretoken_vllm: disabled, the server goes on without it: %s", why)

    @_guarded
    def added(self, request):
        self.stream.put(add_of(request))
        self.answer_resync()

    @_guarded
    def freed(self, request):
        self.cached.pop(request.request_id, None)
        if hashed := hashed_of(request, self.scheduler.block_size):
            self.stream.put(hashed)
        end = (request.request_id, request.status.name, request.num_output_tokens, getattr(request, "num_preemptions", 0))
        if self.in_update:
            self.ended.append(end)
        else:
            self.stream.put({"type": "free", "t": now(), "ended": [end]})

    @_guarded
    def note_preempted(self, request):
        self.preempted.append(request.request_id)

    @_guarded
    def answer_resync(self, put=None):
        if self.stream.snapshot_wanted():
            (put or self.stream.put)(snapshot_of(self))

    @_guarded
    def scheduled(self, output, began, done):
        if not output.num_scheduled_tokens:
            return  # nothing is executed; what was preempted goes with the next record
        computed, new, resumed = self._admissions(output)
        items, chunks, prefill_tokens, decode_reqs, kv, kv_decode, ctx = [], [], 0, 0, 0, 0, 0
        for rid, n in output.num_scheduled_tokens.items():
            request = self.scheduler.requests[rid]
            samples, before = not request.is_prefill_chunk, computed[rid]
            kv += before + n
            newest_missing = before == request.num_tokens + request.num_output_placeholders - self.lag
            if n == 1 and samples and before >= request.num_prompt_tokens and newest_missing:
                decode_reqs += 1
                kv_decode += before + 1
            else:
                chunks.append(len(items))
                prefill_tokens += n
                ctx += n * before
            items.append((rid, n, before, int(samples)))
        self.pending.append((output, {
            "type": "step", "seq": self.steps, "t_sched0": began, "t_sched1": done, "prefill_reqs": len(chunks),
            "prefill_tokens": prefill_tokens, "prefill_ctx": ctx, "decode_reqs": decode_reqs, "kv_tokens": kv, "kv_decode": kv_decode,
            "items": items, "chunks": chunks, "skipped": self._skipped(output.num_scheduled_tokens), "new": new, "resumed": resumed,
            "preempted": self.preempted, "running": len(self.scheduler.running), "waiting": self._waiting(),
            "free_blocks": self._free(), "inflight": len(self.pending) + 1}))
        self.steps += 1
        self.preempted = []
        self.cost = now() - done

    @_guarded
    def updated(self, output, result_at):
        if not self.pending or self.pending[0][0] is not output:
            return
        began = now()
        _, record = self.pending.popleft()
        # From the later of (this batch dispatched, the previous result) to this result: the step's period in both modes.
        record.update(t_result=result_at, t_update1=began, dur=result_at - max(record["t_sched1"], self.previous_end),
                      ended=self.ended, running_after=len(self.scheduler.running), waiting_after=self._waiting(),
                      free_blocks_after=self._free())
        self.ended, self.previous_end = [], result_at
        record["hook_ns"] = self.cost + now() - began
        self.stream.put(record)
        self.answer_resync()

    def _admissions(self, output):
        cached = output.scheduled_cached_reqs
        computed = dict(zip(cached.req_ids, cached.num_computed_tokens))
        new, resumed = [], []
        for request in output.scheduled_new_reqs:  # a version of the model runner lists resumed requests here too
            computed[request.req_id] = request.num_computed_tokens
            (resumed if request.req_id in self.cached else new).append((request.req_id, request.num_computed_tokens))
        back = getattr(cached, "resumed_req_ids", ())
        resumed += [(rid, computed[rid]) for rid in cached.req_ids if rid in back]
        self.cached.update(new + resumed)
        return computed, new, resumed

    def _skipped(self, scheduled):
        running = self.scheduler.running
        if len(running) == len(scheduled):
            return []
        return [r.request_id for r in running if r.request_id not in scheduled and r.num_computed_tokens >= r.num_prompt_tokens]

    def _waiting(self):
        return self.scheduler.get_request_counts()[1]

    def _free(self):
        return self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()


class _Traced:
    """Put in front of a scheduler class of vLLM; calls it first and changes nothing that it returns."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._foretoken = Tracer(self, None)
        address = os.environ.get("FORETOKEN_SYNC")
        if address is None:
            _log.warning("foretoken_vllm: FORETOKEN_SYNC is not set, nothing is sent (unix:PATH, tcp:HOST:PORT or file:PATH)")
            return
        try:
            self._foretoken.stream = Stream.open(address, hello_of(self), self._foretoken)
        except Exception as error:  # noqa: BLE001 - the server starts all the same
            _log.error("foretoken_vllm: disabled, the server goes on without it: %s: %s", type(error).__name__, error)

    def add_request(self, request):
        super().add_request(request)
        self._foretoken.added(request)

    def _free_request(self, request, *args, **kwargs):
        self._foretoken.freed(request)
        return super()._free_request(request, *args, **kwargs)

    def _preempt_request(self, request, *args, **kwargs):
        self._foretoken.note_preempted(request)
        return super()._preempt_request(request, *args, **kwargs)

    def schedule(self, *args, **kwargs):
        began = now()
        output = super().schedule(*args, **kwargs)
        self._foretoken.scheduled(output, began, now())
        return output

    def update_from_output(self, scheduler_output, model_runner_output):
        result_at = now()
        self._foretoken.in_update = True
        try:
            outputs = super().update_from_output(scheduler_output, model_runner_output)
        finally:
            self._foretoken.in_update = False
        self._foretoken.updated(scheduler_output, result_at)
        return outputs

    def shutdown(self, *args, **kwargs):
        if self._foretoken.stream is not None:
            self._foretoken.stream.close()
        return super().shutdown(*args, **kwargs)


@functools.cache
def traced_scheduler_class(asynchronous):
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    base = AsyncScheduler if asynchronous else Scheduler
    return type(f"Foretoken{base.__name__}", (_Traced, base), {})
