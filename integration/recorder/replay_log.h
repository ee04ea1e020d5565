// ReplayLog: runs the SCHEDULERs of a recorded session again, in virtual time: each core is told what the log says that it was told, at the
// times that the log says, and what it decides now is compared with what it decided then.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/sched/scheduler_core.h"
#include "schema/record.h"

namespace foretoken {

// A candidate as it stood when a decision was made.
struct CandidateView {
  std::string instance;
  LoadView load;
  bool predicted = false;
  Prediction prediction;
  double score = 0;  // lower is better; infinity: left out
};

class ReplayObserver {
 public:
  virtual ~ReplayObserver() = default;
  // Every record, before it is played.
  virtual void OnRecord(const LogRecord& record) = 0;
  // A decision or rejection that the log holds, after OnRecord; `alike`: it was made again to the bit.
  virtual void OnDecision(const LogRecord& record, const Decision& decision, bool alike) = 0;
  // The candidates of a decision, when it was made; of a re-picked one twice.
  virtual void OnChosen(const LogRecord& record, DecisionId decision, RequestId request, const std::string& policy,
                        const std::vector<CandidateView>& candidates) = 0;
};

struct ReplayResult {
  SessionRecord session;
  std::vector<std::string> instances;
  uint64_t records = 0;
  uint64_t decisions = 0;  // that the log holds; rejections included
  uint64_t identical = 0;  // of these, made again to the bit
  uint64_t different = 0;
  uint64_t extra = 0;  // made now and not then
  std::string first_difference;
  // Of the SIMULATORs, where their side was recorded.
  uint64_t predictions = 0;
  uint64_t predictions_identical = 0;
  std::string first_prediction_difference;
  Duration span;        // from the first to the last record
  bool full = false;    // the log had reached its size
  std::string damaged;  // what is wrong with the log's end, if anything
};

// `observer` may be null. Error: the log cannot be read, or its session not be made again.
Result<ReplayResult> ReplayLog(const std::string& path, ReplayObserver* observer);

// The seed of the k-th SCHEDULER of the node that is `node`-th in the topology (0: also where there are no nodes).
uint64_t SchedulerSeed(uint64_t seed, uint32_t node, uint32_t k);

}  // namespace foretoken
