#include "integration/engines/vllm/live_shadow.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "runtime/engine/block_hasher.h"

namespace foretoken {
namespace {

// An alias outlives every block that may still be cached under it.
constexpr size_t kAliasesPerBlock = 8;

EngineConfig ConfigOf(const Hello& h) {
  EngineConfig c;
  ApplyRulesOfServer(h.version, c);
  c.max_num_seqs = h.max_num_seqs;
  c.max_num_active_seqs = h.max_num_active_seqs;
  c.max_num_batched_tokens = h.max_num_batched_tokens;
  c.num_gpu_blocks = static_cast<int32_t>(std::min<int64_t>(h.kv_blocks, 1 << 30));
  c.block_size = h.block_tokens;
  if (h.max_model_len > 0) c.max_model_len = h.max_model_len;
  c.prefix_caching = h.prefix_caching;
  c.chunked_prefill = h.chunked_prefill;
  c.async_scheduling = h.async_scheduling;
  c.reserve_full_isl = h.reserve_full_isl;
  c.policy = h.priority_policy ? QueuePolicy::kPriority : QueuePolicy::kFcfs;
  c.long_prefill_token_threshold = h.long_prefill_token_threshold;
  c.long_prefill_adaptive = h.long_prefill_adaptive;
  c.watermark = h.watermark;
  c.stop_at_eos = true;  // where outputs end is learnt when they do
  return c;
}

EngineRequest RequestOf(RequestId id, int32_t priority, int64_t order_ns, int64_t prompt, int64_t max_tokens,
                        const EngineConfig& config) {
  EngineRequest q;
  q.id = id;
  q.priority = priority;
  q.arrival_key = static_cast<double>(order_ns) / 1e9;
  q.prompt_tokens = prompt;
  q.max_tokens = max_tokens > 0 ? max_tokens : config.max_model_len;
  return q;
}

std::string Number(RequestId id) { return (id.value() >> 63) != 0 ? "of another client" : "ft-" + std::to_string(id.value()); }

std::string Said(const ShadowDisagreement& d) {
  std::string text = "step " + std::to_string(d.step) + ", " + NameOf(d.rule);
  if (d.request) text += ", request " + Number(*d.request);
  return text + ": shadow " + std::to_string(d.shadow) + ", server " + std::to_string(d.engine);
}

bool SameProgress(const std::vector<Snapshot::Request>& a, const std::vector<Snapshot::Request>& b, RequestId& first) {
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    first = b[i].request;
    if (a[i].request != b[i].request || a[i].prompt_tokens != b[i].prompt_tokens ||
        a[i].computed_tokens != b[i].computed_tokens || a[i].generated_tokens != b[i].generated_tokens)
      return false;
  }
  if (a.size() == b.size()) return true;
  first = a.size() > b.size() ? a[b.size()].request : b[a.size()].request;
  return false;
}

std::vector<uint32_t> HashedIds(const Snapshot::Exact& e) {
  std::vector<uint32_t> ids;
  for (const auto& [block, hash] : e.hashed_blocks) ids.push_back(block);
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace

void LiveShadow::OnHello(const Hello& hello) {
  live_.clear();
  aliases_.clear();
  alias_order_.clear();
  structured_ = 0;
  exact_ = false;
  shadow_.reset();
  config_ = ConfigOf(hello);
  unsupported_.clear();
  if (hello.engine != "vllm") unsupported_ = "engine " + hello.engine;
  for (const std::string& f : hello.features) unsupported_ += (unsupported_.empty() ? "" : ", ") + f;
  auto core = MakeEngineCore(*config_);
  if (!core.ok() && unsupported_.empty()) unsupported_ = core.error().message;
  if (!unsupported_.empty()) {
    why_ = "not modelled: " + unsupported_;
    return;
  }
  shadow_ = std::make_unique<ShadowEngine>(std::move(core).value());
  exact_ = true;  // a server that has just started holds nothing
  why_.clear();
}

void LiveShadow::Lose(std::string why) {
  if (unsupported_.empty()) why_ = std::move(why);
  exact_ = false;
}

void LiveShadow::Apply(const StreamBody& body) {
  if (const auto* arrived = std::get_if<Arrived>(&body)) return OnArrived(*arrived);
  if (const auto* step = std::get_if<BatchTrace>(&body)) return OnStep(*step);
  if (const auto* hashed = std::get_if<BlocksHashed>(&body)) return OnHashed(*hashed);
  if (const auto* snapshot = std::get_if<Snapshot>(&body)) return OnSnapshot(*snapshot);
  if (const auto* aborted = std::get_if<Aborted>(&body)) {
    if (exact_) shadow_->OnAbort(aborted->request, aborted->at);
    OnGone(aborted->request);
  }
}

void LiveShadow::OnArrived(const Arrived& a) {
  if (!config_) return;
  EngineRequest q = RequestOf(a.request, a.priority, a.order_ns, a.prompt_tokens, a.max_tokens, *config_);
  for (const BlockHash h : a.block_hashes) q.hashes.push_back(Held(h));
  if (a.structured) {
    ++structured_;
    Lose("structured output is not modelled");
  }
  live_[a.request.value()] = {a.prompt_tokens, q.hashes, a.structured};
  if (!exact_) return;
  shadow_->OnEnqueue(q, a.at);
  NoteDisagreement();
}

void LiveShadow::OnGone(RequestId request) {
  const auto at = live_.find(request.value());
  if (at == live_.end()) return;
  structured_ -= at->second.structured ? 1 : 0;
  live_.erase(at);
}

// What the server calls the blocks that the core has filled with this request's output.
void LiveShadow::OnHashed(const BlocksHashed& h) {
  const auto at = live_.find(h.request.value());
  if (at == live_.end() || !config_) return;
  const auto from = static_cast<size_t>(at->second.prompt_tokens / config_->block_size);
  std::vector<BlockHash> held = at->second.known;
  static const std::vector<PromptSegment> kNone;
  ExtendBlockHashes({h.request, at->second.prompt_tokens, &kNone}, config_->block_size,
                    static_cast<int64_t>(from + h.block_hashes.size()), held);
  for (size_t k = 0; k < h.block_hashes.size(); ++k)
    if (held[from + k] != h.block_hashes[k]) AddAlias(h.block_hashes[k], held[from + k]);
}

void LiveShadow::OnStep(const BatchTrace& trace) {
  if (exact_) {
    shadow_->OnStep(std::make_shared<ReportedStep>(ReportOf(trace)));
    ++counters_.steps;
    NoteDisagreement();
  } else {
    ++counters_.followed;
  }
  for (const BatchTrace::Finish& f : trace.finished) OnGone(f.request);
}

void LiveShadow::NoteDisagreement() {
  if (shadow_->disagreements() == 0) return;
  ++counters_.disagreements;
  last_disagreement_ = Said(*shadow_->last_disagreement());
  Lose("disagreed: " + last_disagreement_);
}

void LiveShadow::OnSnapshot(const Snapshot& snapshot) {
  if (!config_ || !unsupported_.empty()) return;
  if (exact_) {
    if (!snapshot.exact) return;
    ++counters_.compared;
    const std::string difference = DifferenceTo(snapshot);
    if (difference.empty()) return;
    ++counters_.differed;
    last_difference_ = difference;
    Lose("differed: " + difference);
  }
  if (snapshot.exact && structured_ == 0) Restore(snapshot);
}

// The server may be ahead by the batches in flight, which its stream has not reported yet: the shadow composes them, too.
std::string LiveShadow::DifferenceTo(const Snapshot& snapshot) const {
  const std::unique_ptr<EngineCore> core = shadow_->StateAt(snapshot);
  const Snapshot ours = core->TakeSnapshot(true);
  RequestId first;
  if (!SameProgress(ours.running, snapshot.running, first)) return "running requests, at " + Number(first);
  if (!SameProgress(ours.waiting, snapshot.waiting, first)) return "waiting requests, at " + Number(first);
  if (ours.free_blocks != snapshot.free_blocks)
    return "free blocks: shadow " + std::to_string(ours.free_blocks) + ", server " + std::to_string(snapshot.free_blocks);
  for (const Snapshot::RequestBlocks& theirs : snapshot.exact->requests)
    for (const Snapshot::RequestBlocks& mine : ours.exact->requests)
      if (mine.request == theirs.request && mine.blocks != theirs.blocks) return "blocks of request " + Number(theirs.request);
  if (ours.exact->free_list != snapshot.exact->free_list) return "order of the free list";
  if (HashedIds(*ours.exact) != HashedIds(*snapshot.exact)) return "blocks in the prefix cache";
  return "";
}

void LiveShadow::Restore(const Snapshot& snapshot) {
  std::vector<EngineRequest> requests;
  std::unordered_map<uint64_t, int64_t> prompts;
  for (const auto* list : {&snapshot.running, &snapshot.waiting})
    for (const Snapshot::Request& r : *list) prompts[r.request.value()] = r.prompt_tokens;
  std::unordered_map<uint64_t, Live> live;
  for (const Snapshot::RequestBlocks& d : snapshot.exact->requests) {
    const int64_t prompt = prompts[d.request.value()];
    requests.push_back(RequestOf(d.request, d.priority, d.arrival.nanos(), prompt, d.max_tokens, *config_));
    live[d.request.value()] = {prompt, d.prompt_hashes, false};
  }
  auto core = RestoreEngineCore(*config_, snapshot, requests);
  if (!core.ok()) {
    why_ = "a snapshot could not be used: " + core.error().message;
    return;
  }
  live_ = std::move(live);
  aliases_.clear();  // every block has the server's own hash now
  alias_order_.clear();
  shadow_ = std::make_unique<ShadowEngine>(std::move(core).value());
  shadow_->Continue(snapshot.next_step);
  exact_ = true;
  why_.clear();
  ++counters_.restored;
}

BlockHash LiveShadow::Held(BlockHash stated) {
  const auto at = aliases_.find(stated.value());
  if (at == aliases_.end()) return stated;
  const BlockHash held = at->second.held;
  AddAlias(stated, held);
  return held;
}

void LiveShadow::AddAlias(BlockHash stated, BlockHash held) {
  Alias& alias = aliases_[stated.value()];
  if (alias.uses == 0) alias.held = held;
  ++alias.uses;
  alias_order_.push_back(stated.value());
  while (alias_order_.size() > kAliasesPerBlock * static_cast<size_t>(config_->num_gpu_blocks)) {
    const auto oldest = aliases_.find(alias_order_.front());
    alias_order_.pop_front();
    if (--oldest->second.uses == 0) aliases_.erase(oldest);
  }
}

std::optional<int64_t> LiveShadow::CachedBlocks(std::span<const BlockHash> hashes) const {
  if (!exact_) return std::nullopt;
  std::vector<BlockHash> held(hashes.begin(), hashes.end());
  for (BlockHash& h : held)
    if (const auto at = aliases_.find(h.value()); at != aliases_.end()) h = at->second.held;
  return shadow_->core().CachedBlocks(held);
}

}  // namespace foretoken
