# Copied unchanged (but for this comment) from the project's design material, shared/spec/refsim.py, so that the repository
# stands alone. This is the specification: where the C++ engine differs from it, the engine is wrong.
"""Executable specification of the vLLM V1 scheduler (see vllm-scheduler.md).

Written from the specification alone; it contains no vLLM code.  Its output was compared,
line by line and block id by block id, with the real Scheduler and AsyncScheduler classes of
vLLM main (2026-08-17) on 1,360 random configurations: no difference.
One function per rule, plain arrays.  Usage: refsim.py --trace T.jsonl [flags] --out -
"""
import argparse, hashlib, json, sys
from collections import deque

def parse(argv=None):
    p = argparse.ArgumentParser()
    p.add_argument("--trace", required=True)
    p.add_argument("--out", default="-")
    p.add_argument("--max-num-seqs", type=int, default=1024)           # H100 online default
    p.add_argument("--max-num-batched-tokens", type=int, default=8192)  # H100 online default
    p.add_argument("--num-gpu-blocks", type=int, default=4096, help="INCLUDES the null block")
    p.add_argument("--block-size", type=int, default=16)
    p.add_argument("--max-model-len", type=int, default=131072)
    p.add_argument("--prefix-caching", choices=["on", "off"], default="on")
    p.add_argument("--policy", choices=["fcfs", "priority"], default="fcfs")
    p.add_argument("--long-prefill-token-threshold", type=int, default=0)
    p.add_argument("--watermark", type=float, default=0.0)
    p.add_argument("--reserve-full-isl", choices=["on", "off"], default="on")
    p.add_argument("--chunked-prefill", choices=["on", "off"], default="on")
    p.add_argument("--async-scheduling", choices=["on", "off"], default="off")
    p.add_argument("--stop", choices=["max_tokens", "eos"], default="max_tokens",
                   help="eos: scheduler does not know output_len (max_tokens = max_model_len)")
    p.add_argument("--step-time", default="0.004,0.00003,0.00005,0.00000002", help="a,b,c,d")
    p.add_argument("--cpu", type=float, default=0.0, help="schedule() cost before dispatch, s")
    p.add_argument("--idle-sleep", type=float, default=0.0, help="core.py sleeps 0.001 here")
    p.add_argument("--hash-id-block", type=int, default=0, help="tokens per hash id (0: block size)")
    p.add_argument("--free-list", choices=["new", "append"], default="new",
                   help="append = vLLM before #42656 (2026-06-16): all freed blocks to the back")
    p.add_argument("--lone-long-prefill", choices=["cap", "full"], default="cap",
                   help="full = newer vLLM: the long-prefill threshold is off while running + waiting <= 1 at the start of schedule()")
    p.add_argument("--long-prefill-adaptive", choices=["on", "off"], default="off",
                   help="newer vLLM's long_prefill_token_threshold_adaptive: threshold = max(threshold, max_num_batched_tokens // (running + waiting))")
    p.add_argument("--max-num-active-seqs", type=int, default=0, help="newer vLLM: cap on running at admission (0: max-num-seqs)")
    p.add_argument("--self-preempt", choices=["break", "continue"], default="break",
                   help="continue = vLLM 0.33: with policy=priority a request that preempted itself does not end the running phase")
    p.add_argument("--prefill-schedule-interval", type=int, default=1, help="vLLM 0.33 applies it without data parallelism; older: no effect at DP=1")
    p.add_argument("--blocks", action="store_true", help="also log block ids")
    p.add_argument("--empty", action="store_true", help="also log 0-token steps")
    p.add_argument("--max-steps", type=int, default=2_000_000)
    return p.parse_args(argv)


NONE = -1


class Pool:                                    # blocks 0..N-1; block 0 = null, never usable
    def __init__(s, n, caching, append=False):
        s.append = append; s.ref = [0] * n; s.hash = [None] * n; s.caching = caching
        # doubly linked free list over ids 1..n-1, sentinel index n
        s.H = n; s.nx = [0] * (n + 1); s.pv = [0] * (n + 1)
        prev = s.H
        for b in range(1, n): s.nx[prev] = b; s.pv[b] = prev; prev = b
        s.nx[prev] = s.H; s.pv[s.H] = prev
        s.nfree = n - 1; s.map = {}; s.evicted = 0
    def _ins_after(s, p, b):
        q = s.nx[p]; s.nx[p] = b; s.pv[b] = p; s.nx[b] = q; s.pv[q] = b; s.nfree += 1
    def _rm(s, b):
        p, q = s.pv[b], s.nx[b]; s.nx[p] = q; s.pv[q] = p; s.nfree -= 1
    def lookup(s, h):                          # hash -> first-inserted live block (insertion order)
        d = s.map.get(h)
        return next(iter(d)) if d else None
    def register(s, b, h):
        s.hash[b] = h; s.map.setdefault(h, {})[b] = True
    def alloc(s, k):
        out = []
        for _ in range(k):
            b = s.nx[s.H]; s._rm(b)
            if s.caching and s.hash[b] is not None:        # evict
                d = s.map[s.hash[b]]; del d[b]
                if not d: del s.map[s.hash[b]]
                s.hash[b] = None; s.evicted += 1
            s.ref[b] = 1; out.append(b)
        return out
    def touch(s, bs):
        for b in bs:
            if s.ref[b] == 0: s._rm(b)
            s.ref[b] += 1
    def free(s, bs):                           # bs already reversed: tail block first
        first, last = [], []
        for b in bs:
            s.ref[b] -= 1
            if s.ref[b] == 0: (first if (s.hash[b] is None or not s.caching) and not s.append else last).append(b)
        p = s.H
        for b in first: s._ins_after(p, b); p = b          # unhashed -> FRONT, in this order
        for b in last: s._ins_after(s.pv[s.H], b)          # hashed   -> BACK,  in this order


class Req:
    def __init__(s, row, toks, maxtok, bs, caching):
        s.id = row["id"]; s.arr = row["arrival"]; s.prio = row.get("priority", 0)
        s.tok = toks; s.np = len(toks); s.nout = 0; s.max = maxtok; s.olen = row["output_len"]
        s.comp = 0; s.status = "W"; s.ph = 0; s.inflight = 0; s.stale = 0; s.chunk = False
        s.blocks = []; s.ncached = None            # None: not admitted (no entry)
        s.hashes = []; s.bs = bs; s.caching = caching; s.rehash()
    def rehash(s):
        if not s.caching: return
        while (len(s.hashes) + 1) * s.bs <= len(s.tok):
            i = len(s.hashes); par = s.hashes[-1] if i else None
            s.hashes.append(hashlib.sha256(repr((par, s.tok[i * s.bs:(i + 1) * s.bs])).encode()).digest())
    def key(s): return (s.prio, s.arr, s.id)


class Sim:
    def __init__(s, a):
        s.a = a; s.async_ = a.async_scheduling == "on"; s.caching = a.prefix_caching == "on"
        s.bs = a.block_size; s.pool = Pool(a.num_gpu_blocks, s.caching, a.free_list == "append")
        s.wm = int(a.watermark * a.num_gpu_blocks)
        s.W = deque() if a.policy == "fcfs" else []        # waiting
        s.S = []                                            # skipped_waiting (async stale only)
        s.R = []; s.reqs = {}; s.fin_pending = False
        s.executed = 0; s.last_prefill = -a.prefill_schedule_interval; s.capbound = False      # prefill cadence
    # ---- queues ---------------------------------------------------------------
    def has_requests(s): return bool(s.W or s.S or s.R or s.fin_pending)
    def w_push(s, q, r, front):
        if s.a.policy == "fcfs":
            q.appendleft(r) if front else q.append(r)
        else: q.append(r); q.sort(key=Req.key)
    def add(s, r): s.reqs[r.id] = r; s.w_push(s.W, r, False)
    # ---- KV -------------------------------------------------------------------
    def cdiv(s, n): return -(-n // s.bs)
    def cache_upto(s, r, ntok):
        if not s.caching: return
        full = ntok // s.bs; c = r.ncached or 0
        for i in range(c, full): s.pool.register(r.blocks[i], r.hashes[i])
        if full > c: r.ncached = full
    def lookup(s, r):
        hit = []
        if s.caching:
            for h in r.hashes[:(len(r.tok) - 1) // s.bs]:
                b = s.pool.lookup(h)
                if b is None: break
                hit.append(b)
        return hit
    def alloc(s, r, n, hit, admit):
        """allocate_slots. returns list of new blocks or None"""
        p, ml = s.pool, s.a.max_model_len
        wm = s.wm if (admit and s.R) else 0
        local = r.comp + len(hit) * s.bs
        evictable = sum(1 for b in hit if p.ref[b] == 0)
        def need(ntok):
            if r.ncached is not None: return max(s.cdiv(ntok) - len(r.blocks), 0)
            return max(s.cdiv(ntok) - (len(hit) + len(r.blocks)), 0) + evictable
        if admit and s.a.reserve_full_isl == "on" and need(min(len(r.tok), ml)) + wm > p.nfree: return None
        slots = min(min(local, ml) + n, ml)
        if need(slots) + wm > p.nfree: return None
        if hit: p.touch(hit); r.blocks = list(hit); r.ncached = len(hit)
        new = p.alloc(max(s.cdiv(slots) - len(r.blocks), 0)); r.blocks += new
        if s.caching:
            s.cache_upto(r, min(local + n, len(r.tok)))
        return new
    def free(s, r):
        s.pool.free(r.blocks[::-1]); r.blocks = []; r.ncached = None
    def preempt(s, r):
        s.free(r); r.status = "P"; r.comp = 0; r.stale = r.inflight; r.ph = 0
        s.w_push(s.W, r, True); s.preempted.append(r.id)
    # ---- schedule() -----------------------------------------------------------
    def schedule(s):
        a = s.a; budget = a.max_num_batched_tokens; thr = a.long_prefill_token_threshold
        eligible = len(s.R) + len(s.W) + len(s.S)
        if a.lone_long_prefill == "full" and eligible <= 1: thr = 0
        if thr > 0 and a.long_prefill_adaptive == "on": thr = max(thr, a.max_num_batched_tokens // max(eligible, 1))
        sched = {}; newb = {}; new, resumed = [], []; s.preempted = []; s.pool.evicted = 0; pre_step = False
        defer = (a.prefill_schedule_interval > 1 and not s.capbound and s.executed + 1 - s.last_prefill < a.prefill_schedule_interval
                 and any(not r.chunk for r in s.R)); pf = False
        i = 0
        while i < len(s.R) and budget > 0:
            r = s.R[i]
            if r.ph > 0 and r.comp + 2 - r.ph >= r.np + r.max: i += 1; continue   # async: last token in flight
            if defer and r.chunk: i += 1; continue
            n = len(r.tok) + r.ph - r.comp
            if 0 < thr < n: n = thr
            n = min(n, budget, a.max_model_len - r.comp - 1)
            if n <= 0: i += 1; continue
            while True:
                nb = s.alloc(r, n, [], False)
                if nb is not None: break
                if a.policy == "priority":
                    v = max(s.R, key=lambda q: (q.prio, q.arr))          # first maximal in running order
                    vi = s.R.index(v); del s.R[vi]
                    if vi < i: i -= 1
                    if v.id in sched: budget += sched.pop(v.id); newb.pop(v.id)
                else: v = s.R.pop()
                pre_step = True; s.preempt(v)
                if v is r: break
            if nb is None:
                if a.self_preempt == "continue" and a.policy == "priority" and r.status == "P": continue   # r left R: i is the next one
                break
            sched[r.id] = n; newb[r.id] = nb; budget -= n; i += 1; pf |= r.chunk
        if not pre_step:
            skip = []
            while (s.W or s.S) and budget > 0:
                if len(s.R) >= (a.max_num_active_seqs or a.max_num_seqs): break
                if a.policy == "fcfs": q = s.S if s.S else s.W
                else: q = (s.W if (not s.S or (s.W and s.W[0].key() < s.S[0].key())) else s.S)
                r = q[0]
                def pop(): q.popleft() if isinstance(q, deque) else q.pop(0)
                if r.stale > 0: pop(); skip.append(r); continue
                hit = s.lookup(r) if r.comp == 0 else []
                c = len(hit) * s.bs if r.comp == 0 else r.comp
                n = len(r.tok) - c
                if defer and n > 1: break
                if 0 < thr < n: n = thr
                if a.chunked_prefill == "off" and n > budget: break
                n = min(n, budget)
                nb = s.alloc(r, n, hit, True)
                if nb is None: break
                pop(); s.R.append(r)
                (new if r.status == "W" else resumed).append((r.id, c)); r.status = "R"
                sched[r.id] = n; newb[r.id] = list(r.blocks); budget -= n; r.comp = c
                pf |= c < len(r.tok) - 1
            # skipped requests go to the FRONT of skipped_waiting, original order kept
            if skip:
                s.S = skip + s.S if a.policy == "fcfs" else sorted(s.S + skip, key=Req.key)
            if not defer: s.capbound = bool(s.W)
        if sched: s.executed += 1
        if pf: s.last_prefill = s.executed
        items = []
        for rid, n in sched.items():
            r = s.reqs[rid]; c0 = r.comp; tot = len(r.tok) + r.ph
            pre = not (c0 == tot - 1 and n == 1 and r.nout + r.ph > 0)
            r.comp += n; r.inflight += n; r.chunk = r.comp < tot
            if not r.chunk and s.async_: r.ph += 1
            items.append((rid, n, c0, pre, not r.chunk))
        s.fin_pending = False
        return items, new, resumed, newb
    def abort(s, rid):
        """finish_requests(): client disconnect or stop string; between two steps, or between schedule() and update() of the step in flight."""
        r = s.reqs.pop(rid); gone = lambda q: type(q)(x for x in q if x is not r)
        s.R, s.W, s.S = gone(s.R), gone(s.W), gone(s.S); s.free(r); s.fin_pending = True
    # ---- update_from_output() ---------------------------------------------------
    def update(s, items):
        first, fin, dead = [], [], set()
        for rid, n, c0, pre, samples in items:
            r = s.reqs.get(rid)
            if r is None: continue
            r.inflight -= n; stale = r.stale > 0
            if stale: r.stale -= n
            if not samples: continue
            was_running = r.status == "R"
            r.tok.append(("out:" + rid, r.nout)); r.nout += 1; r.rehash()
            done = (s.a.stop == "eos" and r.nout == r.olen) or len(r.tok) >= s.a.max_model_len or r.nout >= r.max
            if s.async_:
                if not stale: r.ph -= 1
                if was_running: s.cache_upto(r, r.comp - r.ph)
            first.append(rid)
            if done: fin.append(rid); s.free(r); del s.reqs[rid]; dead.add(rid); s.fin_pending = True
        if dead:
            s.R = [r for r in s.R if r.id not in dead]
            s.W = type(s.W)(r for r in s.W if r.id not in dead); s.S = [r for r in s.S if r.id not in dead]
        return first, fin


def main(argv=None):
    a = parse(argv); rows = [json.loads(l) for l in open(a.trace) if l.strip()]
    for i, r in enumerate(rows): r.setdefault("id", f"r{i}")
    s = Sim(a); out = sys.stdout if a.out == "-" else open(a.out, "w"); meta = {}; step = 0
    ca, cb, cc, cd = [float(x) for x in a.step_time.split(",")]
    W = lambda o: out.write(json.dumps(o, separators=(",", ":")) + "\n")
    def make(r):
        n, t = r["prompt_len"], []
        if "segments" in r:
            for seg, ln in r["segments"]: t += [(seg, i) for i in range(ln)]
        elif r.get("hash_ids"):
            hb = a.hash_id_block or a.block_size
            for h in r["hash_ids"]: t += [(f"h{h}", i) for i in range(hb)]
            t = t[:n]; t += [("p:" + r["id"], i) for i in range(n - len(t))]
        else: t = [("p:" + r["id"], i) for i in range(n)]
        mt = r["output_len"] if a.stop == "max_tokens" else r.get("max_tokens", a.max_model_len)
        meta[r["id"]] = dict(type="request", id=r["id"], arrival=r["arrival"], prompt_len=n, output_len=r["output_len"],
                             cached=None, first_sched=None, first_token=None, finish=None, preemptions=0, out_tokens=0)
        return Req(r, t, mt, a.block_size, a.prefix_caching == "on")
    arr = deque(sorted(rows, key=lambda r: r["arrival"])); Q = 2 if s.async_ else 1
    fl, t, gpu, idle = deque(), 0.0, 0.0, 0
    it = 0
    while True:
        it += 1
        if it > a.max_steps: raise SystemExit("max steps")
        if not (s.has_requests() or fl):
            if not arr: break
            t = max(t, arr[0]["arrival"])
        while arr and arr[0]["arrival"] <= t: s.add(make(arr.popleft()))
        ex = False
        if s.has_requests():
            st = t; items, new, res, newb = s.schedule(); ex = bool(items)
            pt = sum(n for _, n, _, p, _ in items if p); dc = sum(1 for x in items if not x[3]); kv = sum(x[1] + x[2] for x in items)
            dur = ca + cb * pt + cc * dc + cd * kv if items else 0.0
            for i, c in new: meta[i]["first_sched"] = st; meta[i]["cached"] = c
            for i in s.preempted: meta[i]["preemptions"] += 1
            rec = dict(type="step", sched_t=st, prefill_tokens=pt, decode_seqs=dc, kv_tokens=kv,
                       items=[dict(id=i, n=n, computed=c, prefill=p, samples=x) for i, n, c, p, x in items],
                       new=[dict(id=i, cached=c) for i, c in new], resumed=[dict(id=i, cached=c) for i, c in res],
                       preempted=s.preempted, evicted=s.pool.evicted, free_after_sched=s.pool.nfree, running=len(s.R), waiting=len(s.W) + len(s.S))
            if a.blocks: rec["new_block_ids"] = {i: b for i, b in newb.items() if b}
            t += a.cpu; start = max(t, gpu) if items else t; end = start + dur
            if items: gpu = end
            rec.update(start=start, end=end); fl.appendleft((items, rec, end))
            if Q > 1 and len(fl) < Q and (ex or s.has_requests()):
                if not ex and s.has_requests(): t += a.idle_sleep
                continue
        elif not fl: continue
        items, rec, end = fl.pop(); t = max(t, end)
        got, fin = s.update(items); ft = []
        for i in got:
            m = meta[i]; m["out_tokens"] += 1
            if m["first_token"] is None: m["first_token"] = t; ft.append(i)
        for i in fin: meta[i]["finish"] = t
        rec.update(first_token=ft, finished=fin, free_after_update=s.pool.nfree)
        if items or a.empty: W(dict(step=step, **rec)); step += 1
        if not ex and s.has_requests(): t += a.idle_sleep
        idle = 0 if ex or fl else idle + 1
        if idle > 3:
            if arr: t = max(t, arr[0]["arrival"]); idle = 0; continue
            print("stuck", file=sys.stderr); break
    for m in meta.values(): W(m)
    if out is not sys.stdout: out.close()


if __name__ == "__main__": main()
