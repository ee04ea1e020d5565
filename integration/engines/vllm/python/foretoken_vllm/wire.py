"""Records as frames of the project's schema (schema/*.capnp), standard stream framing, one message a frame. Runs off the engine's thread."""
import functools
import pathlib

import capnp

from foretoken_vllm.ids import number_of

_REASONS = {"FINISHED_STOPPED": "stop", "FINISHED_LENGTH_CAPPED": "length"}
MOST_BYTES = 1 << 20  # of a frame, both ways


@functools.cache
def schema():
    here = pathlib.Path(__file__).resolve()
    installed = here.parent / "schema"
    folder = installed if installed.is_dir() else here.parents[5] / "schema"
    capnp.remove_import_hook()
    return capnp.load(str(folder / "frame.capnp"), imports=[str(pathlib.Path(capnp.__file__).parents[1])])


def _nanos(seconds):
    return int(seconds * 1e9)


class Encoder:
    def __init__(self, hello):
        self.hello = hello
        self.instance = int(hello["instance"] or 0)

    def frames(self, record, sent_ns):
        """The frames of one record: one, unless several requests ended at once outside a step."""
        kind = record["type"]
        if kind == "free":
            return [self._frame(n, sent_ns, "aborted", {"request": number_of(rid), "atNs": record["t"]})
                    for n, (rid, *_) in zip(record["numbers"], record["ended"])]
        body, content = getattr(self, "_" + kind)(record)
        return [self._frame(record["n"], sent_ns, body, content)]

    def _frame(self, seq, sent_ns, body, content):
        frame = schema().Frame.new_message()
        frame.stream = {"instance": self.instance, "source": 0, "epoch": self.hello["epoch"], "seq": seq, "sentNs": sent_ns,
                        "body": {body: content}}
        return frame.to_bytes()

    def _hello(self, _):
        h = self.hello
        return "hello", {
            "maxNumBatchedTokens": h["max_num_batched_tokens"], "maxNumSeqs": h["max_num_seqs"], "blockTokens": h["block_size"],
            "kvBlocks": h["num_gpu_blocks"], "prefixCaching": h["prefix_caching"], "asyncScheduling": h["async_scheduling"],
            "priorityPolicy": h["policy"] == "priority", "maxModelLen": h["max_model_len"], "engine": "vllm", "version": h["version"],
            "features": h["features"], "chunkedPrefill": h["chunked_prefill"], "reserveFullIsl": h["reserve_full_isl"],
            "longPrefillAdaptive": h["long_prefill_token_threshold_adaptive"], "maxNumActiveSeqs": h["max_num_active_seqs"],
            "longPrefillTokenThreshold": h["long_prefill_token_threshold"], "watermark": h["watermark"]}

    def _add(self, r):
        return "arrived", {"request": number_of(r["id"]), "atNs": r["t"], "promptTokens": r["prompt"], "maxTokens": r["max_tokens"] or 0,
                           "priority": r["prio"], "blockHashes": r["hashes"], "orderNs": _nanos(r["arrival"]),
                           "structured": r["structured"]}

    def _hashed(self, r):
        return "blocksHashed", {"request": number_of(r["id"]), "atNs": r["t"], "blockHashes": r["hashes"]}

    def _heartbeat(self, r):
        return "heartbeat", {"atNs": r["t"], "lastSeq": r["n"], "held": r["held"], "stepInFlight": r["since"] is not None,
                             "inFlightSinceNs": r["since"] or 0}

    def _step(self, r):
        tokens = r["prefill_tokens"]
        return "syncBatchResult", {
            "step": r["seq"], "kind": "real", "scheduledNs": r["t_sched1"], "startNs": r["t_result"] - r["dur"], "durationNs": r["dur"],
            "prefillTokens": tokens, "prefillSeqs": r["prefill_reqs"],
            "prefillCtxTokens": (r["prefill_ctx"] + tokens // 2) // tokens if tokens else 0,
            "decodeSeqs": r["decode_reqs"], "decodeKvTokens": r["kv_decode"],
            "chunks": [self._chunk(*r["items"][k]) for k in r["chunks"]],
            "admitted": [{"request": number_of(i), "cached": c, "resumed": False} for i, c in r["new"]] +
                        [{"request": number_of(i), "cached": c, "resumed": True} for i, c in r["resumed"]],
            "finished": [{"request": number_of(i), "reason": _REASONS.get(status, "aborted"), "outputTokens": out}
                         for i, status, out, _ in r["ended"]],
            "preempted": [number_of(i) for i in r["preempted"]], "skipped": [number_of(i) for i in r["skipped"]],
            "waiting": r["waiting_after"], "running": r["running_after"], "freeBlocks": r["free_blocks_after"],
            "totalBlocks": self.hello["num_gpu_blocks"] - 1}

    def _snapshot(self, r):
        def row(request):
            rid, prompt, computed, generated, cached = request
            return {"request": number_of(rid), "promptTokens": prompt, "computedTokens": computed, "generatedTokens": generated,
                    "cachedTokens": cached}

        return "snapshot", {"lastSeq": r["n"], "nextStep": r["seq"], "asOfNs": r["t"], "running": [row(q) for q in r["running"]],
                            "waiting": [row(q) for q in r["waiting"]], "freeBlocks": r["free_blocks"], "totalBlocks": r["total_blocks"],
                            **({"exact": self._exact(r["exact"])} if r["exact"] else {})}

    @staticmethod
    def _exact(e):
        return {
            "requests": [{"request": number_of(d["id"]), "priority": d["prio"], "maxTokens": d["max_tokens"] or 0,
                          "arrivalNs": _nanos(d["arrival"]), "blocks": d["blocks"], "promptHashes": d["hashes"],
                          "registeredBlocks": d["registered"], "placeholders": d["placeholders"], "inFlightTokens": d["in_flight"],
                          "staleTokens": d["stale"], "preempted": d["preempted"], "partialPrefill": d["partial"],
                          "skipped": d["skipped"]} for d in e["requests"]],
            "freeList": e["free_list"], "hashedBlocks": [{"block": b, "hash": h} for b, h in e["hashed"]],
            "inFlight": [{"step": step, "startNs": at, "requests": [number_of(i) for i, *_ in items],
                          "tokens": [n for _, n, *_ in items], "samples": [s for *_, s in items]} for step, at, items in e["in_flight"]],
            "finishPending": e["finish_pending"]}

    @staticmethod
    def _chunk(rid, tokens, computed, samples):
        return {"request": number_of(rid), "tokens": tokens, "computed": computed, "samples": bool(samples)}


def frame_length(head):
    """Bytes of the frame that begins with `head`, or None when more of it is needed. ValueError: no frame that anyone here sends."""
    if len(head) < 4:
        return None
    segments = int.from_bytes(head[:4], "little") + 1
    if segments > 512:
        raise ValueError(f"{segments} segments")
    table = 4 * (1 + segments + (segments + 1) % 2)
    if len(head) < table:
        return None
    words = sum(int.from_bytes(head[4 * k:4 * k + 4], "little") for k in range(1, segments + 1))
    if 8 * words > MOST_BYTES:
        raise ValueError(f"{8 * words} bytes")
    return table + 8 * words


def asks_for_snapshot(frame):
    """Whether a received frame is a ResyncRequest; the receiver sends nothing else."""
    with schema().Frame.from_bytes(frame) as received:
        return received.which() == "resyncRequest"
