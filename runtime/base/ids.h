// Identities. An id is opaque: it can be compared and hashed, never computed with.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace foretoken {

template <class Tag, class Rep>
class Id {
 public:
  constexpr Id() = default;
  explicit constexpr Id(Rep v) : v_(v) {}
  constexpr Rep value() const { return v_; }
  constexpr auto operator<=>(const Id&) const = default;

 private:
  Rep v_ = 0;
};

// The router's id of a request; adapters map it to the engine's own.
using RequestId = Id<struct RequestIdTag, uint64_t>;
// Index of an instance in the topology (dense, from 0); the topology holds its name.
using InstanceId = Id<struct InstanceIdTag, uint32_t>;
// Index of a served model's name in the topology.
using ModelId = Id<struct ModelIdTag, uint32_t>;
// One scheduling decision; unique per SCHEDULER.
using DecisionId = Id<struct DecisionIdTag, uint64_t>;
// Grows at every (re)start of an engine.
using Epoch = Id<struct EpochTag, uint64_t>;
// Who sends on a stream: an engine's plugin, or one of several gateways that infer progress.
using SourceId = Id<struct SourceIdTag, uint32_t>;
// Identity of one KV block's content: chained over the whole prefix, so equal hashes mean equal prefixes.
using BlockHash = Id<struct BlockHashTag, uint64_t>;

}  // namespace foretoken

template <class Tag, class Rep>
struct std::hash<foretoken::Id<Tag, Rep>> {
  size_t operator()(foretoken::Id<Tag, Rep> id) const noexcept {
    uint64_t x = static_cast<uint64_t>(id.value()) * 0x9E3779B97F4A7C15ull;
    return static_cast<size_t>(x ^ (x >> 32));
  }
};
