#include "integration/eval/grid.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <sstream>

namespace foretoken {
namespace {

std::string Shown(double factor) {
  std::ostringstream s;
  s << factor;
  return s.str();
}

// File names without folder and ending, unless two of them would be the same.
std::vector<std::string> Stems(const std::vector<std::string>& paths) {
  std::vector<std::string> stems;
  for (const std::string& p : paths) stems.push_back(std::filesystem::path(p).stem().string());
  if (std::set<std::string>(stems.begin(), stems.end()).size() < stems.size()) return paths;
  return stems;
}

std::string Unquoted(const std::string& value) {
  return value.size() >= 2 && value.front() == '"' && value.back() == '"' ? value.substr(1, value.size() - 2) : value;
}

std::vector<GridDimension> DimensionsOf(const Experiment& e, const std::vector<double>& factors,
                                        const std::vector<uint64_t>& seeds) {
  std::vector<GridDimension> out;
  out.push_back({"topology", Stems(e.topologies)});
  out.push_back({"workload", Stems(e.workloads)});
  out.push_back({"faults", e.faults.empty() ? std::vector<std::string>{"of the topology"} : Stems(e.faults)});
  out.push_back({e.loads.empty() ? "rate_scale" : "load", {}});
  for (const double f : factors) out.back().values.push_back(Shown(f));
  for (const ExperimentAxis& axis : e.axes) {
    out.push_back({axis.path, {}});
    for (const std::string& value : axis.values) out.back().values.push_back(Unquoted(value));
  }
  out.push_back({"seed", {}});
  for (const uint64_t seed : seeds) out.back().values.push_back(std::to_string(seed));
  return out;
}

// Every run as it was measured, then as each replay has it.
void ExpandMeasured(const Experiment& e, Grid& grid) {
  grid.dimensions = {{"run", {}}, {"source", {"measured"}}, {"seed", {"1"}}};
  for (const MeasuredCase& m : e.measured) grid.dimensions[0].values.push_back(m.name);
  for (const int64_t n : e.calibrate_first) {
    grid.dimensions[1].values.push_back(n == 0 ? "engine" : "engine, calibrated on " + std::to_string(n));
    grid.uncounted_first = std::max(grid.uncounted_first, static_cast<size_t>(n));
  }
  for (size_t r = 0; r < e.measured.size(); ++r) {
    for (size_t s = 0; s <= e.calibrate_first.size(); ++s) {
      GridCell cell;
      cell.at = {r, s, 0};
      cell.measured = e.measured[r];
      if (s > 0) cell.replay_calibrated_on = e.calibrate_first[s - 1];
      grid.cells.push_back(std::move(cell));
    }
  }
}

}  // namespace

std::string Grid::KeyOf(const GridCell& cell) const {
  std::string key;
  for (size_t d = 0; d < dimensions.size(); ++d)
    key += (d == 0 ? "" : ";") + dimensions[d].name + "=" + dimensions[d].values[cell.at[d]];
  return key;
}

size_t Grid::Find(const std::string& dimension) const {
  const auto is = [&](const GridDimension& d) { return d.name == dimension; };
  return static_cast<size_t>(std::find_if(dimensions.begin(), dimensions.end(), is) - dimensions.begin());
}

Grid ExpandGrid(const Experiment& e, bool smoke) {
  Grid grid;
  grid.name = e.name;
  grid.question = e.question;
  grid.stand_in = smoke;
  grid.by_load = !e.loads.empty();
  grid.limit = smoke ? (e.limit == 0 ? e.smoke_limit : std::min(e.limit, e.smoke_limit)) : e.limit;
  if (!e.measured.empty()) {
    ExpandMeasured(e, grid);
    return grid;
  }
  grid.warmup_share = e.warmup_share;
  grid.drain_share = e.drain_share;
  grid.truth_sample = e.truth_sample;
  const std::vector<double>& factors = grid.by_load ? e.loads : e.rate_scales;
  const std::vector<uint64_t> seeds(e.seeds.begin(), smoke ? e.seeds.begin() + 1 : e.seeds.end());
  grid.seeds = seeds.size();
  grid.dimensions = DimensionsOf(e, factors, seeds);

  std::vector<size_t> at(grid.dimensions.size(), 0);
  for (;;) {
    GridCell cell;
    cell.at = at;
    cell.topology = e.topologies[at[0]];
    cell.workload = e.workloads[at[1]];
    if (!e.faults.empty()) cell.faults = e.faults[at[2]];
    cell.factor = factors[at[3]];
    cell.set = e.set;
    for (size_t a = 0; a < e.axes.size(); ++a) cell.set.push_back(e.axes[a].path + "=" + e.axes[a].values[at[4 + a]]);
    cell.seed = seeds[at.back()];
    cell.set.push_back("seed=" + std::to_string(cell.seed));
    grid.cells.push_back(std::move(cell));
    size_t d = at.size();
    while (d > 0 && ++at[d - 1] == grid.dimensions[d - 1].values.size()) at[--d] = 0;
    if (d == 0) return grid;
  }
}

}  // namespace foretoken
