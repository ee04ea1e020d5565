// DecisionLog: the decisions of a run as JSON Lines in their order, and the SHA-256 of those bytes (docs/cli.md). The bytes hold
// no seed and no wall time: same topology, trace and seed, same bytes.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/result.h"
#include "runtime/sched/scheduler_core.h"

namespace foretoken {

// {"t_ns":..,"request":..,"instance":"..","policy":"..","predictor":"..","state_version":..,"score":..}\n ; score is null when it
// is not finite. `names`: of the instances.
void AppendDecisionLine(const DecisionRecord& record, const std::vector<std::string>& names, std::string& out);

class DecisionLog {
 public:
  // `path` empty: only the digest is kept. Error: the file cannot be written.
  static Result<std::unique_ptr<DecisionLog>> Open(const std::string& path, std::vector<std::string> names);
  ~DecisionLog();

  void Add(const DecisionRecord& record);
  // Ends the log. Error: the disk was full or the like; the file is incomplete. Returns the digest in hex.
  Result<std::string> Close();

 private:
  DecisionLog() = default;
  void Flush();

  std::string path_;
  std::FILE* file_ = nullptr;
  bool failed_ = false;
  std::vector<std::string> names_;
  std::string buffer_;
  struct Digest;
  std::unique_ptr<Digest> digest_;
};

}  // namespace foretoken
