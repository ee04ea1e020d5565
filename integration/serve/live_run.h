// LiveRun: the whole system in this process on the real clock: SCHEDULERs, SIMULATORs and INSTANCEs over emulated engines, as actors, and
// a built-in load when one is given. The clock is read here and below, nowhere above.
// It ends when the load has ended, when `lasts` is over or when told to; what is under way is then drained, for `drain` at most.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "integration/observe/observation.h"
#include "integration/observe/observation_board.h"
#include "integration/recorder/recorder.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "runtime/eval/virtual_host.h"
#include "runtime/fault/fault_plan.h"
#include "runtime/workload/trace.h"

namespace foretoken {

struct RecordingOptions {
  std::string path;  // of a new file
  uint64_t bytes_max = uint64_t{1} << 30;
  bool simulators = false;  // also what SIMULATORs take and predict
  SessionRecord session;
};

class FaultSwitch;

// Who watches the run (integration/observe).
struct WatchOptions {
  std::shared_ptr<ObservationBoard> board;  // never null
  SystemFacts facts;
  std::vector<std::string> kinds;       // of the instances' engines
  std::vector<std::string> models;      // the first that each serves
  std::shared_ptr<FaultSwitch> faults;  // null: nothing can be broken while it runs
};

struct Reload {
  PolicyCall policy;
  FaultPlan faults;
};

struct LiveOptions {
  RunOptions run;
  size_t shard_size = 1;              // SIMULATORs per actor
  std::shared_ptr<const Trace> load;  // never null; may be empty: serve until told to stop
  bool endless = false;               // submit the load again and again, until told to stop; then no request's record is kept
  std::optional<Duration> lasts;      // at most
  Duration drain = Duration::Seconds(30);
  std::optional<RecordingOptions> record;
  std::optional<WatchOptions> watch;
  // Asked as often as stop_requested: what the operator has set anew since, read without errors. May be empty.
  std::function<std::optional<Reload>()> reload;
  std::function<void(const Status&)> reloaded;  // whether it holds; an error: nothing has changed
  std::function<bool()> stop_requested;         // asked ten times a second, in the calling thread
};

struct LiveResult {
  RunResult run;
  std::vector<Duration> decision_latency;  // submission to decision
  double wall_seconds = 0;
  RecorderStatus recorded;
  bool drained = true;  // false: something was still under way when the time for it was over
};

// The RECORDER that the options ask for; null when they ask for none. Error: the file cannot be made.
Result<caf::actor> StartRecorder(caf::actor_system& system, const HostClock& clock, const LiveOptions& options);
// What a SCHEDULER keeps for those who watch; absent when nobody can.
std::optional<RequestJournal::Options> JournalOf(const LiveOptions& options);
RecorderStatus StatusOf(caf::actor_system& system, const caf::actor& recorder);

// Blocks. Error: what in the options cannot be run.
Result<LiveResult> RunLive(const LiveOptions& options);

}  // namespace foretoken
