#include "integration/eval/find_capacity.h"

#include "integration/eval/run_cell.h"
#include "integration/eval/saturation.h"
#include "integration/simulate/load_workload.h"

namespace foretoken {
namespace {

namespace json = boost::json;

class Search {
 public:
  explicit Search(const FindCapacityOptions& options) : options_(options) {
    grid_.limit = options.limit;
    grid_.warmup_share = options.warmup_share;
    grid_.drain_share = options.drain_share;
  }

  Result<json::object> Run() {
    const Result<double> saturated = ScaleOfSaturation();
    if (!saturated.ok()) return saturated.error();
    // Doubles or halves from 0.8 of saturation until the answer is between two rates.
    double met = 0, missed = 0, scale = 0.8 * *saturated;
    while (met == 0 || missed == 0) {
      const Result<bool> meets = Meets(scale);
      if (!meets.ok()) return meets.error();
      (*meets ? met : missed) = scale;
      scale *= *meets ? 1.3 : 0.7;
      if (scale < *saturated / 1000)
        return Error{"even at 1/1000 of saturation fewer than " + std::to_string(options_.slo_share) +
                     " of the requests meet their targets: lower --slo-share, or raise the topology's slo"};
      if (scale > *saturated * 1000)
        return Error{"targets are met even at 1000 times saturation: the workload is too short to fill a queue; raise --limit"};
    }
    while (missed / met > 1 + options_.precision) {
      const double middle = (met + missed) / 2;
      const Result<bool> meets = Meets(middle);
      if (!meets.ok()) return meets.error();
      (*meets ? met : missed) = middle;
    }
    return json::object{{"rate_scale", met},
                        {"requests_per_second", best_.at("offered_rps")},
                        {"load", met / *saturated},
                        {"slo_attainment", best_attainment_},
                        {"slo_share", options_.slo_share},
                        {"seeds", options_.seeds.size()},
                        {"tried", tried_},
                        {"figures", best_}};
  }

 private:
  GridCell CellOf(uint64_t seed) const {
    GridCell cell;
    cell.topology = options_.topology;
    cell.workload = options_.workload;
    cell.faults = options_.faults;
    cell.set = options_.set;
    cell.set.push_back("seed=" + std::to_string(seed));
    cell.seed = seed;
    return cell;
  }

  Result<double> ScaleOfSaturation() const {
    const Result<Topology> topology = TopologyOf(CellOf(options_.seeds.front()));
    if (!topology.ok()) return topology.error();
    const Result<Trace> trace = LoadWorkload("", options_.workload, {options_.limit, 1, options_.seeds.front()});
    if (!trace.ok()) return trace.error();
    const Result<double> rate = SaturationRate(*topology, *trace);
    if (!rate.ok()) return rate.error();
    if (!(MeanRate(*trace) > 0)) return Error{options_.workload + ": all requests arrive at once; there is no rate to scale"};
    return *rate / MeanRate(*trace);
  }

  Result<bool> Meets(double scale) {
    double sum = 0;
    json::object first;
    for (const uint64_t seed : options_.seeds) {
      Result<json::object> row = RunCell(grid_, CellOf(seed), scale);
      if (!row.ok()) return row.error();
      json::object& figures = row->at("figures").as_object();
      const json::value& met = figures.at("slo_attainment");
      sum += met.is_number() ? met.to_number<double>() : 0;
      if (first.empty()) first = std::move(figures);
    }
    const double attainment = sum / static_cast<double>(options_.seeds.size());
    tried_.emplace_back(json::array{scale, attainment});
    if (options_.show) options_.show(tried_.size());
    const bool meets = attainment >= options_.slo_share;
    if (meets) {  // rates that meet it only grow
      best_ = std::move(first);
      best_attainment_ = attainment;
    }
    return meets;
  }

  const FindCapacityOptions& options_;
  Grid grid_;
  json::array tried_;
  json::object best_;
  double best_attainment_ = 0;
};

}  // namespace

Result<json::object> FindCapacity(const FindCapacityOptions& options) { return Search(options).Run(); }

}  // namespace foretoken
