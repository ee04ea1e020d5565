// Loaded into an unmodified llama-server (LD_PRELOAD): holds each of its steps until the time that a given law says, so that a tiny
// model steps at the pace of a machine of one's choice while batching, KV cache, HTTP and streaming stay the real server's, and writes
// a line per step.
//   FORETOKEN_STEP_LAW=BASE,PREFILL,DECODE  microseconds: a step takes BASE + PREFILL * prompt tokens + DECODE * decoding sequences
//   FORETOKEN_STEP_LOG=FILE                 JSON Lines {"t","ms","work_ms","prefill","decode"}: CLOCK_MONOTONIC seconds, paced and real time
// Built by llama_engine.py with g++, outside Bazel: it needs llama.cpp's headers.
#include <dlfcn.h>
#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "llama.h"

namespace {

double Now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

void SleepUntil(double at) {
  timespec t;
  t.tv_sec = static_cast<time_t>(at);
  t.tv_nsec = static_cast<long>((at - static_cast<double>(t.tv_sec)) * 1e9);
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, nullptr) != 0) {}
}

struct Law {
  double base = 0, prefill = 0, decode = 0;  // microseconds
  bool given = false;
};

Law ReadLaw() {
  Law law;
  const char* text = std::getenv("FORETOKEN_STEP_LAW");
  law.given = text != nullptr && std::sscanf(text, "%lf,%lf,%lf", &law.base, &law.prefill, &law.decode) == 3;
  return law;
}

FILE* OpenLog() {
  const char* path = std::getenv("FORETOKEN_STEP_LOG");
  FILE* file = path == nullptr ? nullptr : std::fopen(path, "a");
  if (file != nullptr) std::setvbuf(file, nullptr, _IOLBF, 1 << 16);
  return file;
}

// A sequence with one token whose output is wanted decodes; all else is prompt. (The last token of a prompt that comes alone counts
// as decoding: it costs the same.)
void CountTokens(const llama_batch& batch, int& prefill, int& decode) {
  struct Seen {
    int tokens = 0;
    bool output = false;
  };
  std::map<llama_seq_id, Seen> sequences;
  for (int32_t i = 0; i < batch.n_tokens; ++i) {
    Seen& s = sequences[batch.seq_id != nullptr ? batch.seq_id[i][0] : 0];
    ++s.tokens;
    s.output = s.output || batch.logits == nullptr || batch.logits[i] != 0;
  }
  for (const auto& [id, s] : sequences) (s.tokens == 1 && s.output ? decode : prefill) += s.tokens;
}

}  // namespace

extern "C" int32_t llama_decode(llama_context* context, llama_batch batch) {
  using Decode = int32_t (*)(llama_context*, llama_batch);
  static const Decode real = reinterpret_cast<Decode>(dlsym(RTLD_NEXT, "llama_decode"));
  static const Law law = ReadLaw();
  static FILE* const log = OpenLog();
  const double begun = Now();
  const int32_t result = real(context, batch);
  llama_synchronize(context);
  const double worked = Now();
  int prefill = 0, decode = 0;
  CountTokens(batch, prefill, decode);
  if (law.given) SleepUntil(begun + (law.base + law.prefill * prefill + law.decode * decode) * 1e-6);
  if (log != nullptr)
    std::fprintf(log, "{\"t\":%.6f,\"ms\":%.3f,\"work_ms\":%.3f,\"prefill\":%d,\"decode\":%d}\n", begun, (Now() - begun) * 1e3,
                 (worked - begun) * 1e3, prefill, decode);
  return result;
}
