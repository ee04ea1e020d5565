// Reads an experiment from YAML: a grid of simulations (docs/configuration.md, "Experiments"). An axis is a topology path as
// --set takes it, with the values to try; every value is checked against every topology, so that a grid cannot fail in its
// last hour. Or, with `measured`, real measured runs beside what the emulated engine makes of them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "configs/config_error.h"

namespace foretoken {

// Values of one topology path.
struct ExperimentAxis {
  std::string path;                 // "scheduler.policy"
  std::vector<std::string> values;  // as text: "min_e2e", "{ poll: 100ms }"
  bool operator==(const ExperimentAxis&) const = default;
};

// A real run and what is known of its machine: arguments of `foretoken accuracy`.
struct MeasuredCase {
  std::string name;
  std::string run;      // folder with requests.jsonl and meta.json
  std::string table;    // step times: a table's file or a profile's folder
  bool absent = false;  // one of them is not there
  bool operator==(const MeasuredCase&) const = default;
};

struct Experiment {
  std::string name;
  std::string question;                  // what it answers, one sentence; heads the report
  std::vector<MeasuredCase> measured;    // not empty: no grid of simulations, and only limits and calibrate_first hold
  std::vector<int64_t> calibrate_first;  // of `measured`: a replay for each; 0: the step times as they are
  std::vector<std::string> topologies;   // paths, resolved, as the next two
  std::vector<std::string> workloads;
  std::vector<std::string> faults;       // empty: each topology's own
  std::vector<ExperimentAxis> axes;      // all combinations are run
  std::vector<std::string> set;          // path=value, on every run
  std::vector<double> rate_scales = {};  // arrivals so many times as fast; exactly one of this and loads is not empty
  std::vector<double> loads = {};        // share of the rate at which the fleet saturates
  std::vector<uint64_t> seeds = {1};
  size_t limit = 0;         // requests per run; 0: all of the workload
  double warmup_share = 0;  // of the requests at each end, simulated but not counted
  double drain_share = 0;
  double truth_sample = 0;   // share of decisions compared with the truth by forking the engines; 0: none
  size_t smoke_limit = 200;  // requests per run of --smoke, which takes one seed

  // Runs of the whole grid.
  size_t runs() const;
};

ConfigResult<Experiment> ParseExperiment(std::string_view text, std::string_view file_name,
                                         const std::vector<std::string>& overrides, const std::string& base_dir);
ConfigResult<Experiment> LoadExperiment(const std::string& path, const std::vector<std::string>& overrides = {});

}  // namespace foretoken
