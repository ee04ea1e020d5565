#!/usr/bin/env python3
"""A live vLLM server for tests and measurements: the unmodified CPU build with foretoken_vllm, a tiny random model, and, where asked for,
steps that last as long as a law says, so that several servers share two cores and behave like GPUs.

    live_server.py MODEL_FOLDER PORT LOG [--pace A,B,C,D] [vllm flags]     FORETOKEN_SYNC, FORETOKEN_INSTANCE as for the plugin

A + B x prefill tokens + C x decode sequences + D x thousand KV tokens, in ms. Runs until SIGTERM. The python is that of vllm_engine.py.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PLUGIN = HERE / "python"


def make_model(folder, layers=2, hidden=128, vocab=4000, seed=1):
    """Config and a byte-level tokenizer trained on made-up words; weights are vLLM's dummies."""
    import random

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    words = ["".join(rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") for _ in range(rng.randint(1, 4))) for _ in range(3000)]
    text = [" ".join(rng.choice(words) for _ in range(200)) for _ in range(300)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    missing = vocab - tokenizer.get_vocab_size()
    tokenizer.add_tokens([f" t{k:05d}" for k in range(missing)])  # whatever the random model samples has text
    tokenizer.save(str(folder / "tokenizer.json"))
    chat = ("{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}<|assistant|>\n{% endif %}")
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for name, content in {
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192, "chat_template": chat, **tokens},
        "special_tokens_map.json": tokens,
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2},
        "config.json": {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers, "num_attention_heads": hidden // 64, "num_key_value_heads": 1, "head_dim": 64, "vocab_size": vocab,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": True, "bos_token_id": 1,
            "eos_token_id": 2, "torch_dtype": "bfloat16"},
    }.items():
        (folder / name).write_text(json.dumps(content))


class Server:
    """`python`: the one that vllm_engine.setup returned. flags: of `vllm serve`."""

    def __init__(self, python, model, port, log, sync=None, instance=0, pace=None, flags=(), environment=None):
        self.port, self.log = port, str(log)
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
               "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
               "PYTHONPATH": f"{PLUGIN}:{HERE}", "PYTHONDONTWRITEBYTECODE": "1", "FORETOKEN_INSTANCE": str(instance),
               **(environment or {})}
        env.pop("FORETOKEN_SYNC", None)
        if sync:
            env["FORETOKEN_SYNC"] = sync
        if pace:
            env["FORETOKEN_PACE"] = pace
        scheduler = "live_pace.Scheduler" if pace else "foretoken_vllm.Scheduler"
        vllm = pathlib.Path(python).parent / "vllm"
        command = [str(python), str(vllm), "serve", str(model), "--load-format", "dummy", "--dtype", "bfloat16", "--host", "127.0.0.1",
                   "--port", str(port), "--served-model-name", "tiny", "--enforce-eager", "--scheduler-cls", scheduler, *flags]
        with open(log, "w") as out:  # a group of its own: the engine is a process below it
            self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                            start_new_session=True)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self, seconds=300):
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=2):
                    return self
            except OSError:
                time.sleep(0.25)
        tail = "\n".join(pathlib.Path(self.log).read_text(errors="replace").splitlines()[-25:])
        self.kill()
        raise RuntimeError(f"vLLM did not start:\n{tail}")

    def kill(self, how=signal.SIGKILL):
        """Its whole process group, which this made."""
        try:
            os.killpg(self.process.pid, how)
        except ProcessLookupError:
            pass
        self.process.wait(60)


def main():
    model, port, log, *flags = sys.argv[1:]
    pace = None
    if "--pace" in flags:
        at = flags.index("--pace")
        pace = flags[at + 1]
        del flags[at:at + 2]
    server = Server(sys.executable, model, int(port), log, os.environ.get("FORETOKEN_SYNC"), os.environ.get("FORETOKEN_INSTANCE", "0"), pace,
                    flags)
    signal.signal(signal.SIGTERM, lambda *_: server.kill(signal.SIGTERM))
    server.wait_ready()
    print(f"ready on port {port}", flush=True)
    return server.process.wait()


if __name__ == "__main__":
    sys.exit(main())
