// HostedSimulators: the SIMULATORs that a node owns, each under the term of its ownership. A node may come to own one, and lose it, while it
// runs. One that has heard nothing of its engine yet answers no prediction: an empty mirror would be worse than none.
// The caller is the one actor that owns this; it has no threads, clock or messages.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/model/messages.h"
#include "runtime/predict/enqueue_order.h"
#include "runtime/predict/simulator_core.h"

namespace foretoken {

class HostedSimulators {
 public:
  // Makes the SIMULATOR of an instance, with nothing known of its engine.
  using Factory = std::function<Result<std::unique_ptr<SimulatorCore>>(InstanceId)>;

  // `streams`: INSTANCEs tell of their engines' progress, so that a mirror knows nothing before it has heard of it.
  HostedSimulators(size_t instances, bool streams, Factory make)
      : hosted_(instances), streams_(streams), make_(std::move(make)) {}

  // From now on ours. One that we hold goes on under the new term.
  Status Own(InstanceId instance, uint64_t term) {
    if (instance.value() >= hosted_.size()) hosted_.resize(instance.value() + 1);  // one that has joined
    Hosted& h = hosted_[instance.value()];
    if (h.core == nullptr) {
      auto core = make_(instance);
      if (!core.ok()) return core.error();
      h.core = std::move(core).value();
      h.snapshot_due = streams_;
    }
    h.term = term;
    return Status();
  }
  // Someone else's from now on.
  void Disown(InstanceId instance) {
    if (instance.value() < hosted_.size()) hosted_[instance.value()] = {};
  }

  bool Owns(InstanceId instance) const {
    return instance.value() < hosted_.size() && hosted_[instance.value()].core != nullptr;
  }
  uint64_t TermOf(InstanceId instance) const { return hosted_[instance.value()].term; }
  SimulatorCore* Find(InstanceId instance) { return Owns(instance) ? hosted_[instance.value()].core.get() : nullptr; }
  bool AwaitsSnapshot(InstanceId instance) const { return Owns(instance) && hosted_[instance.value()].snapshot_due; }

  // Appends to `out` what is known of the targets; those that are not ours, or still know nothing, to out.unreachable.
  void Predict(std::span<const InstanceId> targets, const PredictQuery& query, Instant now, PredictionBatch& out) {
    for (const InstanceId t : targets) {
      SimulatorCore* core = Find(t);
      if (core == nullptr || hosted_[t.value()].snapshot_due) {
        out.unreachable.push_back(t);
        continue;
      }
      out.predictions.push_back(core->Predict(query, now));
      out.terms.push_back(hosted_[t.value()].term);
    }
  }
  // False: not ours.
  bool OnStream(StreamMessage& message, Instant now, SimulatorEffects& effects) {
    SimulatorCore* core = Find(message.instance);
    if (core == nullptr) return false;
    Hosted& h = hosted_[message.instance.value()];
    core->OnStream(message, now, effects);
    if (core->sync_counters().applied > 0) h.snapshot_due = false;  // only the stream's begin or a snapshot can be the first
    return true;
  }
  void OnTimer(Instant now, SimulatorEffects& effects) {
    for (Hosted& h : hosted_)
      if (h.core != nullptr && h.core->NextTimer() <= now) h.core->OnTimer(now, effects);
  }
  Instant NextTimer() const {
    Instant next = Instant::Max();
    for (const Hosted& h : hosted_)
      if (h.core != nullptr) next = std::min(next, h.core->NextTimer());
    return next;
  }

 private:
  struct Hosted {
    std::unique_ptr<SimulatorCore> core;
    uint64_t term = 0;
    bool snapshot_due = false;
  };

  std::vector<Hosted> hosted_;  // by instance
  bool streams_;
  Factory make_;
};

}  // namespace foretoken
