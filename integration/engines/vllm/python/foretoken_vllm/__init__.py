"""A vLLM server tells Foretoken what it does: `vllm serve MODEL --scheduler-cls foretoken_vllm.Scheduler`.

FORETOKEN_SYNC says where to: unix:PATH, tcp:HOST:PORT (frames of the project's schema) or file:PATH (a recording, JSON Lines).
FORETOKEN_INSTANCE is this engine's number in the topology. Without FORETOKEN_SYNC the server runs as if nothing were there.
Never changes a decision, never waits, never takes the server down: on any failure of its own it disables itself and says so once.
"""


class Scheduler:
    """What vLLM constructs. Becomes the traced form of the scheduler that this server's mode asks for: asynchronous or not."""

    def __new__(cls, vllm_config, *args, **kwargs):
        from foretoken_vllm.traced import traced_scheduler_class

        return traced_scheduler_class(vllm_config.scheduler_config.async_scheduling)(vllm_config, *args, **kwargs)
