"""The traced scheduler of foretoken_vllm, each of whose steps lasts as long as a law says, by sleeping (FORETOKEN_PACE=A,B,C,D: live_server.py).

For tests and measurements alone: a tiny model on a CPU then has the timing of a GPU, and servers do not disturb one another.
"""
import functools
import os
import time

from foretoken_vllm.traced import traced_scheduler_class


class _Paced:
    def update_from_output(self, scheduler_output, model_runner_output):
        pending = self._foretoken.pending
        if pending and pending[0][0] is scheduler_output:
            step = pending[0][1]
            law = [float(part) for part in os.environ["FORETOKEN_PACE"].split(",")]
            work = (1, step["prefill_tokens"], step["decode_reqs"], step["kv_tokens"] / 1000)
            began = max(step["t_sched1"], self._foretoken.previous_end)
            left = began + 1e6 * sum(a * b for a, b in zip(law, work)) - time.monotonic_ns()
            time.sleep(max(0, left) / 1e9)
        return super().update_from_output(scheduler_output, model_runner_output)


@functools.cache
def _paced(asynchronous):
    return type("PacedScheduler", (_Paced, traced_scheduler_class(asynchronous)), {})


class Scheduler:
    def __new__(cls, vllm_config, *args, **kwargs):
        return _paced(vllm_config.scheduler_config.async_scheduling)(vllm_config, *args, **kwargs)
