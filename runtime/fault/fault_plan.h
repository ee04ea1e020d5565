// FaultPlan: what goes wrong in a run, as values: per link between two roles how messages are delayed, reordered, doubled or
// lost, and which engines restart when. Link (link.h) executes one link's part; whoever hosts the instances executes restarts.
// Nothing here is random: the seeds are handed to Link.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace foretoken {

// A random duration >= 0. Draws below zero count as zero.
struct DelayLaw {
  enum class Kind : uint8_t { kConstant, kUniform, kNormal, kLogNormal, kPareto };
  Kind kind = Kind::kConstant;
  Duration value = {};               // kConstant: always; kNormal: mean; kLogNormal: median; kPareto: smallest (> 0)
  Duration min = {}, max = {};       // kUniform: min <= max, both included
  Duration deviation = {};           // kNormal: standard deviation
  double sigma = 0;                  // kLogNormal: of the logarithm
  double shape = 0;                  // kPareto: > 0; the tail is heavier the smaller it is
  std::optional<Duration> cap = {};  // draws above it count as it; required for kPareto, whose tail has no end
  bool operator==(const DelayLaw&) const = default;
};

// Gilbert-Elliott: a link is good or bad and moves between the two at each message.
struct BurstLoss {
  double enter = 0;      // P(good -> bad), per message
  double leave = 1;      // P(bad -> good), per message; mean length of a burst = 1 / leave messages
  double loss_good = 0;  // P(message lost) while good
  double loss_bad = 1;   // and while bad
  bool operator==(const BurstLoss&) const = default;
};

// Messages sent at t with from <= t < from + lasts are lost; with `every`, again each `every` after that.
struct PartitionWindow {
  Instant from;
  Duration lasts;
  std::optional<Duration> every;  // > lasts
  bool operator==(const PartitionWindow&) const = default;
};

// The clock of the engine that sends: it shows now + offset + now * ppm / 1e6.
struct ClockSkew {
  Duration offset;
  double ppm = 0;
  Instant At(Instant now) const {
    const double drift = static_cast<double>(now.nanos()) * (ppm * 1e-6);
    return now + offset + Duration::FromNanos(drift);
  }
  bool operator==(const ClockSkew&) const = default;
};

struct LinkFaults {
  DelayLaw delay;                  // every message's way
  double reorder_probability = 0;  // a message takes reorder_delay on top, and later ones may pass it
  DelayLaw reorder_delay;
  double duplicate_probability = 0;  // a second copy, whose way takes its own draw of `delay`, and duplicate_delay on top
  DelayLaw duplicate_delay;
  double drop_probability = 0;
  std::optional<BurstLoss> burst_loss;
  std::vector<PartitionWindow> partitions;
  int64_t bytes_per_second = 0;  // 0: no limit; else messages queue for the wire
  bool in_order = false;         // as over one TCP connection: nothing passes what was sent before it
  ClockSkew clock;
  std::optional<PartitionWindow> active;  // all of the above but the clock happens within these windows only; absent: always
  bool operator==(const LinkFaults&) const = default;
};

// The first broken rule, as "field = value: rule".
Status Validate(const LinkFaults& faults);

enum class LinkRole : uint8_t { kGateway, kScheduler, kSimulator, kInstance, kNode };

// One end of a link: a role, and the instance (or node) by its name; "" for a role that has no name.
struct LinkEnd {
  LinkRole role = LinkRole::kInstance;
  std::string_view name = {};
};

struct LinkRule {
  // Absent role: INSTANCE or SIMULATOR, the ends of the sync streams; a SCHEDULER's links are named. Patterns: '*' stands for any run of characters, '?' for one.
  std::optional<LinkRole> from = LinkRole::kInstance;
  std::string from_name = "*";
  std::optional<LinkRole> to = LinkRole::kSimulator;
  std::string to_name = "*";
  LinkFaults faults;
  bool operator==(const LinkRule&) const = default;
};

// The engine dies at `at` and is back, empty and under a new epoch, `downtime` later; with `every`, again and again.
struct RestartRule {
  std::string instances = "*";  // pattern
  Instant at;
  Duration downtime;
  std::optional<Duration> every;  // > downtime
  bool operator==(const RestartRule&) const = default;
};

struct RestartEvent {
  size_t instance = 0;  // index into the names
  Instant at;
  Duration downtime;
  bool operator==(const RestartEvent&) const = default;
};

struct FaultPlan {
  std::string name = "none";
  std::vector<LinkRule> links;
  std::vector<RestartRule> restarts;

  bool empty() const { return links.empty() && restarts.empty(); }
  // The first rule that fits; nullptr: nothing goes wrong on this link. Points into the plan.
  const LinkFaults* FaultsOf(const LinkEnd& from, const LinkEnd& to) const;
  // Whether a rule is about links from the one role to the other.
  bool Reaches(LinkRole from, LinkRole to) const;
  // What the engine's clock of this instance shows; no skew where its link has none.
  ClockSkew ClockOf(std::string_view instance) const;
  // When the last fault is over: windows end, restarted engines are back. Absent: there are no faults, or some go on for ever.
  std::optional<Instant> End() const;
  // All restarts of these instances before `until`, in order of time, then of instance.
  std::vector<RestartEvent> RestartsOf(const std::vector<std::string>& instance_names, Instant until) const;
  bool operator==(const FaultPlan&) const = default;
};

// '*': any run of characters, '?': exactly one.
bool MatchesPattern(std::string_view pattern, std::string_view name);

}  // namespace foretoken
