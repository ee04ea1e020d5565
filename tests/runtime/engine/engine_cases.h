// Random engine configurations and requests, as in shared/spec/fuzz_cases.py: small pools, shared prefixes, conversations that
// name earlier outputs, every option. A case is a pure function of its seed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "runtime/base/prng.h"
#include "runtime/engine/engine_core.h"

namespace foretoken::testing {

struct EngineCase {
  EngineConfig config;
  struct Arrival {
    int64_t turn = 0;  // of the engine's loop, or microseconds: what the test makes of it
    EngineRequest request;
  };
  std::vector<Arrival> arrivals;  // by turn
};

template <class T>
T PickOne(Prng& prng, std::initializer_list<T> options) {
  return options.begin()[prng.Below(options.size())];
}

inline std::vector<EngineCase::Arrival> RandomArrivals(Prng& prng, int64_t block, int64_t gap_max) {
  constexpr uint64_t kSharedContent = uint64_t{1} << 40;
  struct Shared {
    uint64_t content;
    int64_t length;
  };
  std::vector<Shared> shared;
  for (int64_t i = 0, n = prng.Between(1, 5); i < n; ++i)
    shared.push_back({kSharedContent + 2 * static_cast<uint64_t>(i), prng.Between(1, 12 * block)});
  std::vector<EngineCase::Arrival> arrivals;
  int64_t turn = 0;
  const int64_t count = prng.Between(2, 40);
  const bool plain = prng.Chance(0.3);  // nobody shares anything
  for (int64_t i = 0; i < count; ++i) {
    if (prng.Chance(0.5)) turn += prng.Between(0, gap_max);
    EngineCase::Arrival a;
    a.turn = turn;
    EngineRequest& q = a.request;
    q.id = RequestId(static_cast<uint64_t>(i) + 1);
    q.priority = static_cast<int32_t>(prng.Between(0, 2));
    q.arrival_key = static_cast<double>(turn);
    q.output_tokens = prng.Between(1, PickOne<int64_t>(prng, {3, 20, 60}));
    if (!plain) {
      if (i > 0 && prng.Chance(0.3)) {
        EngineRequest& before = arrivals[prng.Below(arrivals.size())].request;
        q.segments = before.segments;
        if (q.segments.empty()) q.segments.push_back({PrivateContent(before.id), TokenCount(before.prompt_tokens)});
        q.segments.push_back({OutputContent(before.id), TokenCount(prng.Between(1, before.output_tokens))});
      } else {
        for (int64_t k = prng.Between(0, 2); k > 0; --k) {
          const Shared& s = shared[prng.Below(shared.size())];
          q.segments.push_back({s.content, TokenCount(prng.Chance(0.5) ? s.length : prng.Between(1, s.length))});
        }
      }
    }
    int64_t length = 0;
    for (const PromptSegment& s : q.segments) length += s.length.value();
    if (prng.Chance(0.8) || length == 0) {
      const int64_t own = prng.Between(1, 10 * block);
      if (!q.segments.empty()) q.segments.push_back({PrivateContent(q.id), TokenCount(own)});
      length += own;
    }
    q.prompt_tokens = length;
    arrivals.push_back(a);
  }
  for (EngineCase::Arrival& a : arrivals) {
    a.request.output_named_later = false;
    for (const EngineCase::Arrival& other : arrivals)
      for (const PromptSegment& s : other.request.segments)
        if (other.request.id != a.request.id &&
            (s.content == OutputContent(a.request.id) || s.content == PrivateContent(a.request.id)))
          a.request.output_named_later = true;
  }
  return arrivals;
}

inline EngineCase RandomEngineCase(uint64_t seed, int64_t gap_max) {
  Prng prng(Mix64(seed, 0x656e67));
  EngineCase c;
  EngineConfig& g = c.config;
  g.block_size = PickOne<int32_t>(prng, {1, 2, 4, 8, 16});
  c.arrivals = RandomArrivals(prng, g.block_size, gap_max);
  int64_t longest = 0, prompt = 0;
  for (const auto& a : c.arrivals) {
    longest = std::max(longest, a.request.prompt_tokens + a.request.output_tokens);
    prompt = std::max(prompt, a.request.prompt_tokens);
  }
  const int32_t need = static_cast<int32_t>((longest + g.block_size - 1) / g.block_size) + 2;
  g.num_gpu_blocks = PickOne<int32_t>(prng, {need, need + 3, need * 3 / 2 + 1, need * 3, need * 20});
  g.max_num_batched_tokens = PickOne<int32_t>(prng, {16, 32, 64, 256, 2048});
  g.max_num_seqs = std::min(PickOne<int32_t>(prng, {2, 4, 8, 64}), g.max_num_batched_tokens);
  g.prefix_caching = prng.Chance(0.75);
  g.policy = prng.Chance(0.33) ? QueuePolicy::kPriority : QueuePolicy::kFcfs;
  g.long_prefill_token_threshold = PickOne<int32_t>(prng, {0, 0, 0, 8, 24});
  g.watermark = PickOne<double>(prng, {0, 0, 0.01, 0.1});
  g.reserve_full_isl = prng.Chance(0.66);
  g.async_scheduling = prng.Chance(0.5);
  g.stop_at_eos = prng.Chance(0.5);
  g.free_list = prng.Chance(0.25) ? FreeListRule::kAppend : FreeListRule::kUnhashedToFront;
  g.max_model_len =
      std::max(prng.Chance(0.6) ? int64_t{131072} : longest - prng.Between(0, 1), prompt + 1 + prng.Between(0, 2));
  g.lone_long_prefill_full = prng.Chance(0.3);
  g.self_preempt_continues = prng.Chance(0.2);
  g.long_prefill_adaptive = prng.Chance(0.2);
  if (prng.Chance(0.2)) g.max_num_active_seqs = static_cast<int32_t>(prng.Between(1, g.max_num_seqs));
  if (prng.Chance(0.2)) g.prefill_schedule_interval = PickOne<int32_t>(prng, {2, 3, 8});
  for (auto& a : c.arrivals) a.request.max_tokens = g.stop_at_eos ? g.max_model_len : a.request.output_tokens;
  return c;
}

}  // namespace foretoken::testing
