// RunReport of a virtual run: the JSON object of `simulate --json` (docs/cli.md lists the keys), the table for a person, the CSV of
// single requests.
#pragma once

#include <boost/json.hpp>
#include <ostream>
#include <string>

#include "configs/topology.h"
#include "runtime/base/result.h"
#include "runtime/eval/virtual_host.h"
#include "runtime/workload/trace.h"

namespace foretoken {

struct RunContext {
  const Topology* topology = nullptr;
  const Trace* trace = nullptr;
  double wall_seconds = 0;  // first to last event; parsing excluded
  std::string decision_digest;
};

boost::json::object ReportRun(const RunContext& context, const RunResult& result);
// A few lines for a terminal, from the same object.
void PrintRun(const boost::json::object& report, std::ostream& out);
// One line per request, in trace order. Error: the file cannot be written.
Status WriteRequestsCsv(const std::string& path, const RunContext& context, const RunResult& result);

}  // namespace foretoken
