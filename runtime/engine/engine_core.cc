#include "runtime/engine/engine_core.h"

#include "runtime/base/check.h"

namespace foretoken {

void Summarise(const Batch& batch, BatchSummary& s) {
  s.shape = {};
  s.prefill_seqs = 0;
  s.chunks.clear();
  s.skipped.clear();
  s.admitted.assign(batch.admitted.begin(), batch.admitted.end());
  s.preempted.assign(batch.preempted.begin(), batch.preempted.end());
  s.evicted = batch.evicted;
  int64_t context = 0;                                           // sum over prefill tokens of the tokens before their chunk
  size_t admitted = batch.items.size() - batch.admitted.size();  // admissions come last
  for (size_t k = 0; k < batch.items.size(); ++k) {
    const ScheduledItem& i = batch.items[k];
    if (i.prefill) {
      s.shape.prefill_tokens += i.tokens;
      ++s.prefill_seqs;
      context += static_cast<int64_t>(i.tokens) * i.computed;
    } else {
      ++s.shape.decode_seqs;
      s.shape.decode_kv_tokens += i.computed + i.tokens;
    }
    if (i.prefill || k >= admitted) s.chunks.push_back({i.request, i.tokens, i.computed, i.samples});
  }
  if (s.shape.prefill_tokens > 0) s.shape.prefill_ctx = (context + s.shape.prefill_tokens / 2) / s.shape.prefill_tokens;
}

const BatchSummary& EngineCore::ScheduleSummary() {
  constexpr size_t kKept = 8;  // more than any engine has in flight
  if (summaries_.empty()) summaries_.resize(kKept);
  FT_CHECK(batches_in_flight() < static_cast<int32_t>(kKept));
  const Batch& batch = Schedule();
  BatchSummary& summary = summaries_[batch.index % kKept];
  Summarise(batch, summary);
  return summary;
}

}  // namespace foretoken
