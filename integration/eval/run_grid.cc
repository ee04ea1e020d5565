#include "integration/eval/run_grid.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "integration/eval/cell_log.h"
#include "integration/eval/inputs_digest.h"
#include "integration/eval/measured_cell.h"
#include "integration/eval/run_cell.h"
#include "integration/eval/saturation.h"
#include "integration/simulate/load_workload.h"

namespace foretoken {
namespace {

// Hands out cells and takes rows; everything in it is under one lock.
class Work {
 public:
  Work(const Grid& grid, const RunGridOptions& options, CellLog& log) : grid_(grid), options_(options), log_(log) {
    for (size_t k = 0; k < grid.cells.size(); ++k)
      if (!log.rows().contains(grid.KeyOf(grid.cells[k]))) left_.push_back(k);
    done_ = grid.cells.size() - left_.size();
  }

  // Absent when there is nothing left to do.
  std::optional<size_t> Next() {
    const std::lock_guard lock(mutex_);
    if (error_ || next_ == left_.size()) return std::nullopt;
    return left_[next_++];
  }

  void Done(size_t cell, Result<boost::json::object> row) {
    const std::lock_guard lock(mutex_);
    ++done_;
    if (!row.ok()) {
      if (!error_) error_ = Error{grid_.KeyOf(grid_.cells[cell]) + ": " + row.error().message};
      return;
    }
    const Status added = log_.Add(std::move(row).value());
    if (!added.ok() && !error_) error_ = added.error();
    if (options_.show) options_.show(done_, grid_.cells.size());
  }

  size_t left() const { return left_.size(); }
  const std::optional<Error>& error() const { return error_; }

 private:
  const Grid& grid_;
  const RunGridOptions& options_;
  CellLog& log_;
  std::mutex mutex_;
  std::vector<size_t> left_;
  size_t next_ = 0, done_ = 0;
  std::optional<Error> error_;
};

size_t ThreadsFor(size_t jobs, size_t cells) {
  if (jobs == 0) jobs = std::max(1u, std::thread::hardware_concurrency());
  return std::min(jobs, std::max<size_t>(cells, 1));
}

}  // namespace

Result<std::vector<double>> RateScalesOf(const Grid& grid) {
  std::map<std::pair<std::string, std::string>, double> at_load_one;
  std::vector<double> scales;
  for (const GridCell& cell : grid.cells) {
    if (!grid.by_load) {
      scales.push_back(cell.factor);
      continue;
    }
    const std::pair files(cell.topology, cell.workload);
    if (!at_load_one.contains(files)) {
      const Result<Topology> topology = TopologyOf(cell);
      if (!topology.ok()) return topology.error();
      const Result<Trace> trace = LoadWorkload("", cell.workload, {grid.limit, 1, cell.seed, grid.stand_in});
      if (!trace.ok()) return trace.error();
      const Result<double> saturation = SaturationRate(*topology, *trace);
      if (!saturation.ok()) return Error{cell.topology + " under " + cell.workload + ": " + saturation.error().message};
      const double rate = MeanRate(*trace);
      if (!(rate > 0)) return Error{cell.workload + ": all requests arrive at once; a load has no meaning, give rate_scales"};
      at_load_one[files] = *saturation / rate;
    }
    scales.push_back(cell.factor * at_load_one[files]);
  }
  return scales;
}

Result<std::vector<boost::json::object>> RunGrid(const Grid& grid, const RunGridOptions& options) {
  const Result<std::string> digest = InputsDigest(grid);
  if (!digest.ok()) return digest.error();
  CellLog log;
  if (const Status opened = log.Open(options.log, *digest, options.resume); !opened.ok()) return opened.error();
  const Result<std::vector<double>> scales = RateScalesOf(grid);
  if (!scales.ok()) return scales.error();

  Work work(grid, options, log);
  const auto run = [&grid, &work, &scales] {
    while (const std::optional<size_t> k = work.Next()) {
      const GridCell& cell = grid.cells[*k];
      work.Done(*k, cell.measured ? RunMeasuredCell(grid, cell) : RunCell(grid, cell, (*scales)[*k]));
    }
  };
  std::vector<std::thread> threads;
  for (size_t t = ThreadsFor(options.jobs, work.left()); t > 0; --t) threads.emplace_back(run);
  for (std::thread& t : threads) t.join();
  if (work.error()) return *work.error();

  std::vector<boost::json::object> rows;
  for (const GridCell& cell : grid.cells) rows.push_back(log.rows().at(grid.KeyOf(cell)));
  return rows;
}

}  // namespace foretoken
