"""Drives the real scheduler of an installed vLLM, traced by foretoken_vllm, over virtual steps: no model, no server.

Arbitrary tokens come out; what is scheduled, cached, preempted and freed is vLLM's own doing. Needs vllm (CPU build) and pycapnp.
"""
import collections
import json
import pathlib
import tempfile
import types
import zlib

import torch
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

import foretoken_vllm

EOS = 7
TOKEN = 500  # every other token of every output; the segment "output" of a prompt is made of it
STEP_SECONDS = 0.02


def _model_folder():
    folder = tempfile.mkdtemp()
    pathlib.Path(folder, "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "vocab_size": 1000, "max_position_embeddings": 131072,
        "torch_dtype": "float32"}))
    return folder


_MODEL = _model_folder()


def make_scheduler(args):
    """`args`: the flags of `foretoken engine`."""
    block, length = 16, args.get("max_model_len", 32768)
    if args.get("chunked_prefill") == "off":
        length = min(length, args["max_num_batched_tokens"])  # vLLM asks for it
    asynchronous = args.get("async_scheduling") == "on"
    scheduling = SchedulerConfig(
        max_num_batched_tokens=args.get("max_num_batched_tokens", 2048), max_num_seqs=args.get("max_num_seqs", 128), max_model_len=length,
        enable_chunked_prefill=args.get("chunked_prefill", "on") == "on", is_encoder_decoder=False, policy=args.get("policy", "fcfs"),
        long_prefill_token_threshold=args.get("long_prefill_token_threshold", 0), watermark=args.get("watermark", 0.0),
        scheduler_reserve_full_isl=args.get("reserve_full_isl", "on") == "on")
    cache = CacheConfig(block_size=block, enable_prefix_caching=args.get("prefix_caching", "on") == "on")
    config = VllmConfig(
        scheduler_config=scheduling, cache_config=cache, device_config=DeviceConfig("cpu"),
        model_config=ModelConfig(model=_MODEL, skip_tokenizer_init=True, dtype="float32", seed=0, max_model_len=length))
    scheduling.async_scheduling = asynchronous  # the CPU platform had turned it off
    cache.num_gpu_blocks = args.get("num_gpu_blocks", 1000)
    spec = FullAttentionSpec(block_size=block, num_kv_heads=1, head_size=1, dtype=torch.float32)
    init_none_hash(sha256)
    return foretoken_vllm.Scheduler(
        config, kv_cache_config=KVCacheConfig(cache.num_gpu_blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config), block_size=block, hash_block_size=block, log_stats=True)


def _prompt(r, args):
    if r.get("hash_ids"):
        size = args.get("hash_id_block", 512)
        tokens = [1000 * h + k for h in r["hash_ids"] for k in range(size)]
        return (tokens + [zlib.crc32(r["id"].encode()) % 2**30 + k for k in range(r["prompt_len"])])[:r["prompt_len"]]
    segments = r.get("segments") or [[r["id"], r["prompt_len"]]]
    return [TOKEN if name == "output" else zlib.crc32(name.encode()) % 2**30 + k for name, length in segments for k in range(length)]


def make_request(number, r, args):
    params = SamplingParams(max_tokens=args.get("max_tokens", r["output_len"]), ignore_eos=args.get("stop") != "eos")
    if args.get("stop") == "eos":
        params.max_tokens = r["output_len"] + 100
    params.update_from_generation_config({}, EOS)
    return Request(request_id=f"cmpl-ft-{number}-0-0123abcd", prompt_token_ids=_prompt(r, args), sampling_params=params, pooling_params=None,
                   arrival_time=r["arrival"], priority=r.get("priority", 0), block_hasher=get_request_block_hasher(16, sha256))


def _result(output, scheduler, lengths, stop):
    """What a model would give: a token for each request whose prompt is complete, its end where the case says so."""
    ids, tokens = [], []
    for rid in output.num_scheduled_tokens:
        request = scheduler.requests.get(rid)
        ids.append(rid)
        samples = request is not None and not output.was_prefill_chunk[rid]
        last = samples and stop == "eos" and request.num_output_tokens + 1 >= lengths[rid]
        tokens.append(([EOS if last else TOKEN]) if samples else [])
    return ModelRunnerOutput(req_ids=ids, req_id_to_index={r: k for k, r in enumerate(ids)}, sampled_token_ids=tokens)


def _may_come(after, ids, scheduler):
    return after is None or (after in ids and ids[after] not in scheduler.requests)


def run(scheduler, args, trace, after_update, abort=lambda step: None):
    """Until everything has ended; what is `after` another request arrives when that has ended. `after_update(in_flight)` is called behind every step; `abort(step)` may name a request id."""
    arrivals = collections.deque(sorted(enumerate(trace), key=lambda r: r[1]["arrival"]))
    lengths, flight, now, step, ids = {}, collections.deque(), 0.0, 0, {}
    depth = 2 if args.get("async_scheduling") == "on" else 1
    while arrivals or scheduler.has_requests() or flight:
        due = [a for a in arrivals if a[1]["arrival"] <= now and _may_come(a[1].get("after"), ids, scheduler)]
        for number, r in due:
            arrivals.remove((number, r))
            request = make_request(number, r, args)
            ids[r["id"]] = request.request_id
            if request.num_tokens >= scheduler.max_model_len:
                continue  # the front end refuses it
            lengths[request.request_id] = r["output_len"]
            scheduler.add_request(request)
        victim = abort(step)
        if victim in scheduler.requests:
            scheduler.finish_requests(victim, RequestStatus.FINISHED_ABORTED)
        if len(flight) < depth and scheduler.has_requests():
            output = scheduler.schedule()
            output = types.SimpleNamespace(real=output, chunks={r: scheduler.requests[r].is_prefill_chunk for r in output.num_scheduled_tokens})
            flight.append(output)
            if output.real.num_scheduled_tokens and len(flight) < depth:
                continue
        if flight:
            output = flight.popleft()
            output.real.was_prefill_chunk = output.chunks
            scheduler.update_from_output(output.real, _result(output.real, scheduler, lengths, args.get("stop")))
            after_update(len(flight))
            step += 1
        elif arrivals:
            now = max(now, min(r["arrival"] for _, r in arrivals if _may_come(r.get("after"), ids, scheduler)) - STEP_SECONDS)
        now += STEP_SECONDS
