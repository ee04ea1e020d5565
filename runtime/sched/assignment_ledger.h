// AssignmentLedger: the SCHEDULER's own account of what it assigned and how it went, per instance: the only state that policies
// without predictions need, and the fall-back of those with them. It knows dispatches and outcomes, no engine internals.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/base/id_map.h"
#include "runtime/base/ids.h"
#include "runtime/base/units.h"
#include "runtime/sched/policy.h"

namespace foretoken {

class AssignmentLedger {
 public:
  explicit AssignmentLedger(size_t instances) : loads_(instances) {}

  // One that joins at run time, behind the others.
  void AddInstance() { loads_.emplace_back(); }

  struct Assignment {
    InstanceId instance;
    int32_t prompt = 0;           // tokens
    int32_t expected_output = 0;  // tokens
    int32_t uncached = 0;         // prompt tokens not expected in the prefix cache
    uint32_t length_class = 0;
  };

  // False: the request is assigned already (nothing changes).
  bool Assign(RequestId request, const Assignment& a) {
    if (!entries_.Insert(request.value(), Entry{a, true})) return false;
    const Assignment& e = a;
    const InstanceId instance = a.instance;
    LoadView& l = loads_[instance.value()];
    ++l.requests;
    ++l.prefilling;
    l.prefill_tokens += e.uncached;
    l.context_tokens += e.prompt;
    l.expected_output_left += e.expected_output;
    return true;
  }

  void FirstToken(RequestId request) {
    Entry* e = entries_.Find(request.value());
    if (e == nullptr || !e->prefilling) return;
    e->prefilling = false;
    LoadView& l = loads_[e->instance.value()];
    --l.prefilling;
    l.prefill_tokens -= e->uncached;
  }

  // The request ended or was taken back. Where it was; nothing when it is not assigned.
  std::optional<Assignment> Release(RequestId request) {
    FirstToken(request);
    Entry* e = entries_.Find(request.value());
    if (e == nullptr) return std::nullopt;
    const Assignment at = *e;
    LoadView& l = loads_[at.instance.value()];
    --l.requests;
    l.context_tokens -= e->prompt;
    l.expected_output_left -= e->expected_output;
    entries_.Erase(request.value());
    return at;
  }

  std::optional<InstanceId> Where(RequestId request) const {
    const Entry* e = entries_.Find(request.value());
    return e == nullptr ? std::nullopt : std::optional<InstanceId>(e->instance);
  }

  const LoadView& load(InstanceId instance) const { return loads_[instance.value()]; }
  size_t assigned() const { return entries_.size(); }

 private:
  struct Entry : Assignment {
    bool prefilling = false;
  };
  IdMap<Entry> entries_;
  std::vector<LoadView> loads_;
};

}  // namespace foretoken
