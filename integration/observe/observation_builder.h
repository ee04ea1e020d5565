// ObservationBuilder: makes Observations of what the roles of one host report. It remembers what it needs of the ones before: counters, of
// which it makes the timeline of sync events and rates. Owned by one thread; no clock, no messages.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "integration/observe/observation.h"

namespace foretoken {

class ObservationBuilder {
 public:
  struct Options {
    SystemFacts facts;
    size_t decisions = 64;  // in an observation
    size_t events = 300;    // remembered
    Duration drift_over = Duration::Seconds(5);
  };

  explicit ObservationBuilder(Options options) : options_(std::move(options)) {}

  // Instances in order of their ids; any time before End. An instance is never taken away, its state says that it is gone.
  // `engine`: as it is configured, for as long as its mirror is elsewhere.
  void AddInstance(std::string name, std::string kind, std::string model = {}, std::optional<FleetLoad::Engine> engine = {});
  void SetModel(InstanceId instance, std::string model) { instances_[instance.value()].seen.model = std::move(model); }
  size_t instances() const { return instances_.size(); }
  void SetPolicy(std::string policy) { options_.facts.policy = std::move(policy); }

  // ---- Of the observation being made, in any order.
  void Begin();
  void Add(const JournalView& view);
  void Add(const SchedulerCounters& counters, uint64_t open_rounds, uint64_t queued);
  void AddOutstanding(InstanceId instance, int32_t requests) { instances_[instance.value()].seen.outstanding += requests; }
  void Add(MirrorView mirror);
  // What membership says; else an instance is serving and reachable.
  void SetPlace(InstanceId instance, InstanceState state, bool reachable, std::string owner, uint64_t term);
  // It has left, and nothing of it is under way.
  void SetGone(InstanceId instance) { instances_[instance.value()].seen.gone = true; }
  // Of an engine that reports nothing: how often it was seen to start, and its mirror to be rebuilt for another speed.
  void SetInferred(InstanceId instance, uint64_t starts, uint64_t rescaled) {
    instances_[instance.value()].now = {starts, rescaled};
  }
  // Of one that joined: what it is.
  void Name(InstanceId instance, std::string name, std::string kind, std::string model,
            std::optional<FleetLoad::Engine> engine) {
    Known& known = instances_[instance.value()];
    known.engine = engine;
    known.seen.name = std::move(name);
    known.seen.kind = std::move(kind);
    known.seen.model = std::move(model);
  }
  void SetFaults(InstanceId instance, Duration delay, double reorder, double drop, bool down);
  void Missing() { ++now_.incomplete; }
  // `unix_ms`: the wall clock, for people.
  std::shared_ptr<const Observation> End(Instant now, int64_t unix_ms);

 private:
  struct Known {
    InstanceSeen seen;
    std::optional<FleetLoad::Engine> engine;
    std::optional<MirrorView> before;
    struct Inferred {
      uint64_t starts = 0, rescaled = 0;
    };
    Inferred now, then;
    bool reachable_before = true;
    InstanceState state_before = InstanceState::kServing;
    std::deque<std::pair<Instant, DriftCounters>> drift;  // oldest first; spans drift_over
  };

  void Note(InstanceId instance, SyncEventKind kind, uint64_t count, std::string detail = {});
  void Compare(Known& known);
  void Drift(Known& known);
  FleetLoad Load() const;

  Options options_;
  std::vector<Known> instances_;
  std::deque<SyncEvent> events_;  // latest first
  uint64_t next_event_ = 1;
  uint64_t number_ = 0;
  std::optional<Instant> first_;
  Observation now_;
  Duration window_;
  std::unique_ptr<WindowSketches> sketches_;
  Headroom headroom_;
};

std::string_view InstanceStateName(InstanceState state);

}  // namespace foretoken
