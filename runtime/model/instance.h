// Instance: one served model replica as scheduling knows it: what it serves, in which role, where, and whether it may be used.
// Its speed and limits as an engine are in the topology; its load is in the ledger and the mirrors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/ids.h"

namespace foretoken {

// Which part of a request an instance does.
enum class InstanceRole : uint8_t { kBoth, kPrefill, kDecode };

enum class InstanceState : uint8_t {
  kServing,
  kWarming,   // joined; not ready yet
  kCordoned,  // goes on with what it has; takes nothing new
  kDraining,  // as cordoned, and leaves when it is empty
  kAsleep,    // holds no weights; must be woken first
  kDead,
};

struct Instance {
  InstanceId id;
  std::string name;   // "h100-3"
  uint32_t pool = 0;  // index in the topology
  std::vector<ModelId> models;
  std::vector<ModelId> adapters;  // LoRA adapters, which a request names as it names a model
  InstanceRole role = InstanceRole::kBoth;
  std::string endpoint;  // base URL of a real engine; empty: in this process
  uint32_t dp_rank = 0;  // data-parallel rank behind that endpoint
  InstanceState state = InstanceState::kServing;
  int64_t max_model_len = 0;  // tokens; 0: not known
  int64_t kv_tokens = 0;      // tokens that its whole KV cache holds; 0: not known
  bool operator==(const Instance&) const = default;
};

}  // namespace foretoken
