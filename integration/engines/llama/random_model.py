"""Writes a small llama-architecture model with random weights as a GGUF file, with the standard library only. What it says is word
salad; the work per token, the tokenizer and the answers' lengths are real. End-of-sequence and byte tokens have a zero row in the output
matrix, so that sampling passes them over: an answer runs to its max_tokens and is valid UTF-8.
"""
import collections
import random
import re
import struct

WORD_MARK = "\u2581"  # SentencePiece's blank
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # token types
U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5  # value types of GGUF
TEMPLATE = ("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}")


def vocabulary(text, size):
    """[(piece, score, type)]: control and byte tokens, single characters, then words with all their beginnings. The tokenizer joins
    neighbours into known pieces, and a word's beginnings let it grow from left to right; frequent words come first."""
    pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    pieces += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    words = collections.Counter(WORD_MARK + word for word in re.findall(r"[A-Za-z]+|\d|[^\sA-Za-z\d]", text))
    known = dict.fromkeys([WORD_MARK, *map(chr, range(33, 127))])
    for word, _ in words.most_common():
        for end in range(1, len(word) + 1):
            if len(pieces) + len(known) < size:
                known.setdefault(word[:end])
    while len(pieces) + len(known) < size:  # never made by the tokenizer, fine as output
        known[f"{WORD_MARK}filler{len(known)}"] = None
    pieces += [(piece, -float(rank), NORMAL) for rank, piece in enumerate(known)]
    return pieces


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def key(name, kind, value):
    return string(name) + struct.pack("<I", kind) + value


def metadata(pieces, layers, width, heads, inner, context):
    def u32(name, value):
        return key(name, U32, struct.pack("<I", value))

    def array(name, kind, body):
        return key(name, ARRAY, struct.pack("<IQ", kind, len(pieces)) + body)

    count = len(pieces)
    return [
        key("general.architecture", STRING, string("llama")), key("general.name", STRING, string("random")),
        u32("general.file_type", 0), u32("llama.context_length", context), u32("llama.embedding_length", width),
        u32("llama.block_count", layers), u32("llama.feed_forward_length", inner), u32("llama.attention.head_count", heads),
        u32("llama.attention.head_count_kv", heads), u32("llama.rope.dimension_count", width // heads), u32("llama.vocab_size", count),
        key("llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", 1e-5)),
        key("tokenizer.ggml.model", STRING, string("llama")),
        array("tokenizer.ggml.tokens", STRING, b"".join(string(piece) for piece, _, _ in pieces)),
        array("tokenizer.ggml.scores", F32, struct.pack(f"<{count}f", *(score for _, score, _ in pieces))),
        array("tokenizer.ggml.token_type", I32, struct.pack(f"<{count}i", *(kind for _, _, kind in pieces))),
        u32("tokenizer.ggml.bos_token_id", 1), u32("tokenizer.ggml.eos_token_id", 2), u32("tokenizer.ggml.unknown_token_id", 0),
        key("tokenizer.ggml.add_bos_token", BOOL, b"\1"), key("tokenizer.ggml.add_eos_token", BOOL, b"\0"),
        key("tokenizer.chat_template", STRING, string(TEMPLATE)),
    ]


def shapes(layers, width, inner, count):
    """(name, columns, rows) in file order; no rows: a vector."""
    yield "token_embd.weight", width, count
    yield "output_norm.weight", width, 0
    yield "output.weight", width, count
    for layer in range(layers):
        for name, columns, rows in (("attn_norm", width, 0), ("attn_q", width, width), ("attn_k", width, width), ("attn_v", width, width),
                                    ("attn_output", width, width), ("ffn_norm", width, 0), ("ffn_gate", width, inner),
                                    ("ffn_up", width, inner), ("ffn_down", inner, width)):
            yield f"blk.{layer}.{name}.weight", columns, rows


def padded(data):
    return data + b"\0" * (-len(data) % 32)


def write_model(path, text, *, layers=2, width=128, heads=4, inner=384, size=4_096, context=32_768, seed=1):
    prng = random.Random(seed)
    pieces = vocabulary(text, size)
    silent = {i for i, (_, _, kind) in enumerate(pieces) if kind != NORMAL}
    noise = {spread: [prng.gauss(0, spread) for _ in range(1 << 16)] for spread in (0.02, 0.1)}

    def row(columns, spread):
        start = prng.randrange((1 << 16) - columns)
        return struct.pack(f"<{columns}f", *noise[spread][start:start + columns])

    def tensor(name, columns, rows):
        if not rows:
            return struct.pack(f"<{columns}f", *[1.0] * columns)
        spread, zero = (0.1, silent) if name == "output.weight" else (0.02, ())
        return b"".join(bytes(4 * columns) if i in zero else row(columns, spread) for i in range(rows))

    described, data = [], []
    offset = 0
    for name, columns, rows in shapes(layers, width, inner, len(pieces)):
        sides = [columns, rows] if rows else [columns]
        described.append(string(name) + struct.pack("<I", len(sides)) + struct.pack(f"<{len(sides)}Q", *sides)
                         + struct.pack("<IQ", 0, offset))  # 0: 32-bit floats
        data.append(padded(tensor(name, columns, rows)))
        offset += len(data[-1])
    entries = metadata(pieces, layers, width, heads, inner, context)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(described), len(entries)) + b"".join(entries) + b"".join(described)
    with open(path, "wb") as out:
        out.write(padded(head) + b"".join(data))
