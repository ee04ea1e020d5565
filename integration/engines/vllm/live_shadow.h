// LiveShadow: a shadow engine on the stream of a live vLLM server (foretoken_vllm), in its order and without gaps. It decides every step
// from the arrivals before the step is read, compares, and says how much it may claim:
//   exact      every step since the last snapshot was decided as the server did
//   following  it does not know the state (nothing heard yet, or a step differed: a snapshot is asked for), or the server uses what
//              EngineCore does not model
// A snapshot is compared with what the shadow holds, block for block, before it replaces it. Pure: engine's clock, no I/O.
//
// Blocks have the hashes that the server gives them, as far as it says them: those of prompts when a request comes, those of outputs
// when it ends. Until then a block of output has a hash of the shadow's own, which the later one is an alias of.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/engine/engine_config.h"
#include "runtime/model/prediction.h"
#include "runtime/model/stream_message.h"
#include "runtime/sync/shadow_engine.h"

namespace foretoken {

class LiveShadow {
 public:
  struct Counters {
    uint64_t steps = 0;          // decided before they were read
    uint64_t followed = 0;       // steps that were read without having been decided
    uint64_t disagreements = 0;  // among those decided
    uint64_t compared = 0;       // snapshots, with an exact state
    uint64_t differed = 0;       // of these
    uint64_t restored = 0;       // times that a snapshot made it exact
  };

  // A new epoch: another process, with these limits.
  void OnHello(const Hello& hello);
  // Anything but Hello.
  void Apply(const StreamBody& body);
  // The stream's state is not known any more: messages are missing, or it has begun without its beginning.
  void Lose(std::string why);

  StateLevel level() const { return exact_ ? StateLevel::kExact : StateLevel::kFollowing; }
  // Why it is not exact; empty: it is.
  const std::string& why() const { return why_; }
  // An exact snapshot would make it exact.
  bool wants_snapshot() const { return !exact_ && unsupported_.empty() && structured_ == 0 && config_.has_value(); }
  const Counters& counters() const { return counters_; }
  // The latest, in words; empty: none.
  const std::string& last_disagreement() const { return last_disagreement_; }
  const std::string& last_difference() const { return last_difference_; }

  // Null before Hello.
  const EngineConfig* config() const { return config_ ? &*config_ : nullptr; }
  // What its engine would find in its prefix cache of a prompt with these blocks; absent unless exact.
  std::optional<int64_t> CachedBlocks(std::span<const BlockHash> hashes) const;
  // The state as the mirror has it; null unless exact.
  const EngineCore* core() const { return exact_ ? &shadow_->core() : nullptr; }

 private:
  struct Live {
    int64_t prompt_tokens = 0;
    std::vector<BlockHash> known;  // of its first blocks, as the core was given them
    bool structured = false;
  };
  struct Alias {
    BlockHash held;     // as the core has it
    uint32_t uses = 0;  // entries in alias_order_
  };

  void OnArrived(const Arrived& arrived);
  void OnHashed(const BlocksHashed& hashed);
  void OnStep(const BatchTrace& trace);
  void OnSnapshot(const Snapshot& snapshot);
  void OnGone(RequestId request);
  std::string DifferenceTo(const Snapshot& snapshot) const;
  void Restore(const Snapshot& snapshot);
  void NoteDisagreement();
  BlockHash Held(BlockHash stated);
  void AddAlias(BlockHash stated, BlockHash held);

  std::optional<EngineConfig> config_;
  std::string unsupported_;  // features in use that are not modelled
  std::unique_ptr<ShadowEngine> shadow_;
  bool exact_ = false;
  std::string why_ = "no stream yet";
  std::unordered_map<uint64_t, Live> live_;
  int32_t structured_ = 0;  // of these, with constrained output
  std::unordered_map<uint64_t, Alias> aliases_;
  std::deque<uint64_t> alias_order_;  // oldest use first
  Counters counters_;
  std::string last_disagreement_, last_difference_;
};

}  // namespace foretoken
