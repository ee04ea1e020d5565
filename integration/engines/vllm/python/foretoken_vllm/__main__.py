"""`python -m foretoken_vllm check`: whether the vLLM that is installed here has what the plugin hooks into."""
import dataclasses
import inspect
import sys

_TESTED = ("0.32.0", "0.33.0")
_HOOKS = ("add_request", "_free_request", "_preempt_request", "schedule", "update_from_output", "get_request_counts", "shutdown")
_OUTPUT = ("num_scheduled_tokens", "scheduled_new_reqs", "scheduled_cached_reqs")
_REQUEST = ("request_id", "num_prompt_tokens", "num_computed_tokens", "num_output_placeholders", "is_prefill_chunk",
            "num_output_tokens", "block_hashes", "priority", "max_tokens", "arrival_time", "status")


def missing():
    """What is not there, in words."""
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.request import Request

    source = inspect.getsource(Request)
    found = [f"Scheduler.{name}" for name in _HOOKS if not hasattr(Scheduler, name)]
    found += [] if issubclass(AsyncScheduler, Scheduler) else ["AsyncScheduler is no Scheduler"]
    fields = {f.name for f in dataclasses.fields(SchedulerOutput)}
    found += [f"SchedulerOutput.{name}" for name in _OUTPUT if name not in fields]
    found += [f"Request.{name}" for name in _REQUEST if not hasattr(Request, name) and f"self.{name}" not in source]
    return found


def check():
    try:
        import vllm

        lacks = missing()
    except ImportError as error:
        print(f"foretoken_vllm: no vLLM to work with: {error}")
        return 1
    if lacks:
        print(f"foretoken_vllm: vLLM {vllm.__version__} lacks {', '.join(lacks)}: use one of {', '.join(_TESTED)}")
        return 1
    tested = vllm.__version__.split("+")[0] in _TESTED
    print(f"foretoken_vllm: works with vLLM {vllm.__version__}" + ("" if tested else " (not among the tested: " + ", ".join(_TESTED) + ")"))
    return 0


if __name__ == "__main__":
    if sys.argv[1:] != ["check"]:
        print("usage: python -m foretoken_vllm check", file=sys.stderr)
        sys.exit(2)
    sys.exit(check())
