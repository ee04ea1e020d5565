// SglangCore's rules: how a prefill batch is built, when decodes run, who is retracted. Names in comments are SGLang's.
#include <algorithm>
#include <numeric>

#include "runtime/base/check.h"
#include "runtime/engine/sglang_core.h"

namespace foretoken {

// get_next_batch_to_run: prefill first.
const Batch& SglangCore::Schedule() {
  FT_CHECK(!in_flight_);
  batch_.index = next_index_++;
  batch_.items.clear();
  batch_.admitted.clear();
  batch_.preempted.clear();
  batch_.evicted = 0;
  batch_slots_.clear();
  if (!BuildPrefill()) BuildDecode();
  in_flight_ = true;
  batch_.free_blocks_after = free_blocks();
  batch_.running_after = running();
  batch_.waiting_after = waiting();
  return batch_;
}

const BatchSummary& SglangCore::ScheduleSummary() {
  Schedule();
  Summarise(batch_, summary_);
  if (summary_.shape.prefill_tokens > 0)  // every decode stalls
    for (const Slot slot : running_) summary_.skipped.push_back(requests_[slot].id);
  return summary_;
}

// get_new_batch_prefill.
bool SglangCore::BuildPrefill() {
  if (chunked_.empty()) {
    if (batch_is_full_ || waiting_.empty()) return false;
    if (running_.size() >= static_cast<size_t>(config_.max_num_seqs)) {
      batch_is_full_ = true;
      return false;
    }
  }
  Budget budget;
  budget.chunk = config_.max_num_batched_tokens;
  for (const Slot slot : running_)
    budget.reserved += static_cast<double>(std::min(requests_[slot].max_new - requests_[slot].output, kSglangNewTokensClip)) *
                       new_token_ratio_;
  ContinueChunk(budget);
  while (!waiting_.empty()) {
    if (batch_.items.size() + running_.size() >= static_cast<size_t>(config_.max_num_seqs)) {
      batch_is_full_ = true;
      break;
    }
    const Slot slot = waiting_.front();
    const Verdict verdict = TryAdmit(slot, budget);
    const bool taken = !batch_slots_.empty() && batch_slots_.back() == slot;
    if (taken) waiting_.pop_front();
    if (verdict == Verdict::kNoToken) batch_is_full_ = true;
    if (verdict != Verdict::kTaken) break;  // the first that does not fit ends the scan
  }
  if (batch_.items.empty()) return false;
  int64_t extend = 0;
  for (const ScheduledItem& item : batch_.items) extend += item.tokens;
  EvictFor(extend);
  FT_CHECK(available_ >= extend);  // what RemainingTokens promised
  available_ -= extend;
  return true;
}

// add_chunked_req: the chunked request goes first, with as much as the budgets give.
void SglangCore::ContinueChunk(Budget& budget) {
  if (chunked_.empty()) return;
  const Slot slot = chunked_.front();
  Request& r = requests_[slot];
  const int64_t left = r.length() - r.computed;
  int64_t tokens = std::min({left, budget.chunk, available_ + cache_.evictable()});
  if (const double remaining = RemainingTokens(budget); remaining >= 1)
    tokens = std::min(tokens, static_cast<int64_t>(remaining));
  if (tokens <= 0) return;  // no memory at all: decodes run until there is some
  Take(slot, tokens, tokens == left);
  budget.Spend(tokens, tokens == left ? std::min(r.max_new - r.output, kSglangNewTokensClip) : 0);
  if (tokens < left) return;
  chunked_.clear();
  prefilling_.push_back(slot);
}

// add_one_req.
SglangCore::Verdict SglangCore::TryAdmit(Slot slot, Budget& budget) {
  Request& r = requests_[slot];
  if (!chunked_.empty()) return Verdict::kOtherLimit;  // its prompt took the chunk budget, or memory it did not get
  SglangRadixCache::Match match;
  if (config_.prefix_caching) match = cache_.MatchPrefix(r.content.Slice(0, r.length() - 1));  // one token is always computed
  const int64_t extend = r.length() - match.tokens;
  const int64_t max_new = std::min(r.max_new - r.output, kSglangNewTokensClip);
  const double total = static_cast<double>(extend + max_new + 1);  // 1: a page
  if (total >= RemainingTokens(budget)) return Verdict::kNoToken;
  cache_.Lock(match.node);  // what it reuses can no longer be evicted for it
  Verdict verdict = Verdict::kTaken;
  if (total >= RemainingTokens(budget))
    verdict = Verdict::kNoToken;
  else if (extend >= budget.input && !batch_.items.empty())
    verdict = Verdict::kOtherLimit;
  const bool whole = !config_.chunked_prefill || extend <= budget.chunk;
  const int64_t tokens = whole ? extend : budget.chunk;
  if (verdict == Verdict::kTaken && tokens <= 0) verdict = Verdict::kOtherLimit;
  if (verdict != Verdict::kTaken) {
    cache_.Unlock(match.node);
    return verdict;
  }
  r.node = match.node;
  r.prefix = r.computed = match.tokens;
  if (!r.retracted) r.cached = static_cast<int32_t>(match.tokens);
  batch_.admitted.push_back({r.id, static_cast<int32_t>(match.tokens), r.retracted});
  Take(slot, tokens, whole);
  budget.Spend(tokens, whole ? max_new : 0);
  (whole ? prefilling_ : chunked_).push_back(slot);
  return BudgetLeft(budget);
}

// budget_state.
SglangCore::Verdict SglangCore::BudgetLeft(const Budget& budget) const {
  if (RemainingTokens(budget) <= 0) return Verdict::kNoToken;
  if (budget.input <= 0 || (config_.chunked_prefill && budget.chunk <= 0)) return Verdict::kOtherLimit;
  return Verdict::kTaken;
}

void SglangCore::Take(Slot slot, int64_t tokens, bool samples) {
  Request& r = requests_[slot];
  batch_.items.push_back({r.id, static_cast<int32_t>(tokens), static_cast<int32_t>(r.computed), true, samples});
  batch_slots_.push_back(slot);
  r.own += tokens;
}

// update_running_batch: one token for each, once their tokens fit.
void SglangCore::BuildDecode() {
  if (running_.empty()) return;
  if (FitsDecode(running_.size())) {
    new_token_ratio_ = std::max(new_token_ratio_ - kSglangRatioDecay, kSglangRatioMinimum);
  } else {
    Retract();
  }
  available_ -= static_cast<int64_t>(running_.size());
  for (const Slot slot : running_) {
    Request& r = requests_[slot];
    batch_.items.push_back({r.id, 1, static_cast<int32_t>(r.computed), false, true});
    batch_slots_.push_back(slot);
    ++r.own;
  }
}

bool SglangCore::FitsDecode(size_t requests) {
  EvictFor(static_cast<int64_t>(requests));
  return available_ >= static_cast<int64_t>(requests);
}

// retract_decode: at least one goes, shortest output first, then longest prompt; what is not in the cache is dropped.
void SglangCore::Retract() {
  std::stable_sort(running_.begin(), running_.end(), [this](Slot a, Slot b) {
    const Request& x = requests_[a];
    const Request& y = requests_[b];
    return x.output != y.output ? x.output > y.output : x.prompt < y.prompt;
  });
  bool first = true;
  while (running_.size() > 1 && (first || !FitsDecode(running_.size()))) {
    first = false;
    const Slot victim = running_.back();
    running_.pop_back();
    Request& r = requests_[victim];
    Drop(r);
    r.retracted = true;
    batch_.preempted.push_back(r.id);
    waiting_.push_back(victim);
  }
  batch_is_full_ = false;
  if (running_.size() == 1 && !FitsDecode(1)) {  // alone, and there still is no token for it: SGLang gives it up
    const Slot last = running_.back();
    running_.clear();
    aborted_.push_back({requests_[last].id, FinishReason::kAborted, static_cast<int32_t>(requests_[last].output)});
    Release(requests_[last]);
    Forget(last);
  }
  if (running_.empty()) {
    new_token_ratio_ = kSglangRatioInitial;
    return;
  }
  int64_t decoded = 0, max_new = 0;
  for (const Slot slot : running_) {
    decoded += requests_[slot].output;
    max_new += requests_[slot].max_new;
  }
  const int64_t ahead = kSglangRetractSteps * static_cast<int64_t>(running_.size());
  new_token_ratio_ = std::min(1.0, static_cast<double>(decoded + ahead) / static_cast<double>(max_new + 1));
}

const BatchResult& SglangCore::Update() {
  FT_CHECK(in_flight_);
  in_flight_ = false;
  result_ = BatchResult{};
  result_.finished.swap(aborted_);
  for (size_t i = 0; i < batch_slots_.size(); ++i) {
    const Slot slot = batch_slots_[i];
    if (slot == kNoSlot) continue;  // aborted meanwhile
    Request& r = requests_[slot];
    const ScheduledItem& item = batch_.items[i];
    r.computed += item.tokens;
    if (item.samples && Sample(slot)) continue;
    if (item.prefill) MoveToCache(r);
    if (item.prefill && item.samples) running_.push_back(slot);
  }
  batch_slots_.clear();
  prefilling_.clear();
  result_.free_blocks_after = free_blocks();
  result_.running_after = running();
  result_.waiting_after = waiting();
  return result_;
}

bool SglangCore::Sample(Slot slot) {
  Request& r = requests_[slot];
  if (r.output == 0) result_.first_tokens.push_back(r.id);
  result_.sampled.push_back(r.id);
  ++result_.tokens;
  r.content.Append({OutputContent(r.id), r.output, 1});
  ++r.output;
  if (r.output < r.ends_at) return false;
  result_.finished.push_back(
      {r.id, r.ends_by_eos ? FinishReason::kStop : FinishReason::kLength, static_cast<int32_t>(r.output)});
  Release(r);
  running_.erase(std::remove(running_.begin(), running_.end(), slot), running_.end());
  Forget(slot);
  batch_is_full_ = false;
  return true;
}

}  // namespace foretoken
