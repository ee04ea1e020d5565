"""The engine's request ids as the router's numbers.

Foretoken sends `X-Request-Id: ft-N`; vLLM makes `cmpl-ft-N-0-RANDOM` or `chatcmpl-ft-N-RANDOM` of it. Every other id is foreign
traffic: it gets a number with the highest bit set, the same one each time, which no router gives out.
"""
import hashlib
import re

_OURS = re.compile(r"^(?:chatcmpl-)?(?:cmpl-)?ft-(\d{1,18})(?:-0)?(?:-[0-9a-f]{8})?$")
FOREIGN = 1 << 63


def number_of(engine_id):
    ours = _OURS.match(engine_id)
    if ours:
        return int(ours.group(1))
    return FOREIGN | int.from_bytes(hashlib.blake2b(engine_id.encode(), digest_size=8).digest(), "little")


def hash_of(block_hash):
    """64 bits of a vLLM block hash (bytes, or an int in old versions)."""
    if isinstance(block_hash, int):
        return block_hash & ((1 << 64) - 1)
    return int.from_bytes(bytes(block_hash)[:8], "little")
