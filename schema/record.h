// Records of a RECORDER's log (record.capnp) and their codec. Guarantees as those of schema/codec.h, which it is a part of.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "runtime/sched/policy.h"
#include "schema/codec.h"

namespace foretoken {

struct SessionRecord {
  std::string topology_file, topology_text, folder;
  std::vector<std::string> overrides;
  std::string node;
  uint32_t schedulers = 1;
  bool sole = false;
  int64_t zero_ns = 0;  // the machine's monotonic clock at the log's time 0
  bool operator==(const SessionRecord&) const = default;
};
struct DeadlineRecord {
  DecisionId decision;
  bool operator==(const DeadlineRecord&) const = default;
};
struct CandidateRecord {
  InstanceId instance;
  bool usable = true;
  bool operator==(const CandidateRecord&) const = default;
};
struct RejectionRecord {
  RequestId request;
  OutcomeReason reason = OutcomeReason::kNone;
  bool operator==(const RejectionRecord&) const = default;
};
struct PolicyRecord {
  std::string policy;
  PolicyWeights weights;
  bool operator==(const PolicyRecord&) const = default;
};
struct HostingRecord {
  InstanceId instance;
  uint64_t term = 1;
  bool here = true;
  bool operator==(const HostingRecord&) const = default;
};
// An instance joined, like `kind` of the session's; it left.
struct JoinRecord {
  InstanceId instance;
  InstanceId kind;
  std::string name;
  bool fresh = true;
  bool operator==(const JoinRecord&) const = default;
};
struct LeftRecord {
  InstanceId instance;
  bool operator==(const LeftRecord&) const = default;
};
struct TimerRecord {
  InstanceId instance;
  bool operator==(const TimerRecord&) const = default;
};
struct FullRecord {
  bool operator==(const FullRecord&) const = default;
};

// LogRecord::scheduler of what the SIMULATORs of the process take and make.
inline constexpr uint32_t kSimulatorRecords = UINT32_MAX;

struct LogRecord {
  Instant at;
  uint32_t scheduler = 0;
  std::variant<SessionRecord, Message, DeadlineRecord, CandidateRecord, RejectionRecord, FullRecord, PolicyRecord,
               HostingRecord, TimerRecord, JoinRecord, LeftRecord>
      body;
  bool operator==(const LogRecord&) const = default;
};

Result<Frame> EncodeRecord(const LogRecord& record);
Result<LogRecord> DecodeRecord(std::span<const std::byte> frame, const DecodeLimits& limits = {});

}  // namespace foretoken
