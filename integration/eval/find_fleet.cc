#include "integration/eval/find_fleet.h"

#include <algorithm>
#include <utility>

#include "integration/eval/run_cell.h"
#include "integration/eval/saturation.h"
#include "integration/simulate/load_workload.h"

namespace foretoken {
namespace {

namespace json = boost::json;

// A fleet well beyond its saturation cannot meet targets for nine tenths; mixes below this are not tried.
constexpr double kLeastCapacity = 0.9;

struct Mix {
  std::vector<int> counts;  // per kind
  double price = 0;
  double saturation = 0;
};

class FleetSearch {
 public:
  explicit FleetSearch(const FindFleetOptions& options) : options_(options) {
    grid_.limit = options.limit;
    grid_.warmup_share = options.warmup_share;
    grid_.drain_share = options.drain_share;
    cell_.topology = options.topology;
    cell_.workload = options.workload;
    cell_.set = options.set;
  }

  Result<json::object> Run() {
    if (const Status known = ReadKinds(); !known.ok()) return known.error();
    if (const Status measured = Measure(); !measured.ok()) return measured.error();
    for (const Mix& mix : Mixes()) {
      json::object first;
      const Result<double> attainment = AttainmentOf(mix, first);
      if (!attainment.ok()) return attainment.error();
      tried_.emplace_back(json::array{Named(mix), mix.price, *attainment});
      if (options_.show) options_.show(tried_.size());
      if (*attainment < options_.slo_share) continue;
      json::object saturation;
      for (size_t k = 0; k < kinds_.size(); ++k) saturation[kinds_[k].engine] = kinds_[k].saturation;
      return json::object{{"fleet", Named(mix)},
                          {"price", mix.price},
                          {"slo_attainment", *attainment},
                          {"slo_share", options_.slo_share},
                          {"requests_per_second", options_.rate},
                          {"saturation", saturation},
                          {"tried", tried_},
                          {"figures", std::move(first)}};
    }
    return Error{"no mix of at most " + std::to_string(options_.instances_max) + " instances meets the targets for " +
                 std::to_string(options_.slo_share) + " of the requests at this rate (" + std::to_string(tried_.size()) +
                 " tried): raise --instances-max or lower --rate"};
  }

 private:
  struct Kind {
    std::string engine;
    InstanceSpec prototype;
    double price = 0;
    double saturation = 0;  // requests per second of one alone
  };

  Status ReadKinds() {
    Result<Topology> topology = TopologyOf(cell_);
    if (!topology.ok()) return topology.error();
    topology_ = std::move(topology).value();
    if (topology_.pools.size() != 1) return Error{options_.topology + ": a fleet is searched for one pool, this has several"};
    for (const InstanceSpec& i : topology_.instances) {
      const std::string& engine = topology_.engines[i.engine].name;
      if (std::any_of(kinds_.begin(), kinds_.end(), [&](const Kind& k) { return k.engine == engine; })) continue;
      const auto price = options_.prices.find(engine);
      if (price == options_.prices.end()) return Error{"give --price " + engine + "=X: what one instance of it costs"};
      kinds_.push_back({engine, i, price->second, 0});
    }
    for (const auto& [engine, price] : options_.prices)
      if (std::none_of(kinds_.begin(), kinds_.end(), [&](const Kind& k) { return k.engine == engine; }))
        return Error{"--price " + engine + ": " + options_.topology + " has no instance of that engine"};
    return Status();
  }

  Status Measure() {
    const Result<Trace> trace = LoadWorkload("", options_.workload, {options_.limit, 1, options_.seeds.front()});
    if (!trace.ok()) return trace.error();
    if (!(MeanRate(*trace) > 0)) return Error{options_.workload + ": all requests arrive at once; there is no rate to scale"};
    rate_scale_ = options_.rate / MeanRate(*trace);
    for (size_t k = 0; k < kinds_.size(); ++k) {
      Mix one{std::vector<int>(kinds_.size(), 0), 0, 0};
      one.counts[k] = 1;
      const Result<double> rate = SaturationRate(FleetOf(one), *trace);
      if (!rate.ok()) return rate.error();
      kinds_[k].saturation = *rate;
    }
    return Status();
  }

  // By price, then by what they could carry, most first.
  std::vector<Mix> Mixes() const {
    std::vector<Mix> mixes;
    Mix mix{std::vector<int>(kinds_.size(), 0), 0, 0};
    Extend(0, options_.instances_max, mix, mixes);
    std::sort(mixes.begin(), mixes.end(),
              [](const Mix& a, const Mix& b) { return a.price != b.price ? a.price < b.price : a.saturation > b.saturation; });
    return mixes;
  }

  void Extend(size_t kind, int left, Mix& mix, std::vector<Mix>& mixes) const {
    if (kind == kinds_.size()) {
      mix.price = mix.saturation = 0;
      for (size_t k = 0; k < kinds_.size(); ++k) {
        mix.price += mix.counts[k] * kinds_[k].price;
        mix.saturation += mix.counts[k] * kinds_[k].saturation;
      }
      if (mix.saturation >= kLeastCapacity * options_.rate) mixes.push_back(mix);
      return;
    }
    for (int n = 0; n <= left; ++n) {
      mix.counts[kind] = n;
      Extend(kind + 1, left - n, mix, mixes);
    }
    mix.counts[kind] = 0;
  }

  Topology FleetOf(const Mix& mix) const {
    Topology fleet = topology_;
    fleet.instances.clear();
    fleet.pools.front().instances.clear();
    for (size_t k = 0; k < kinds_.size(); ++k)
      for (int n = 0; n < mix.counts[k]; ++n) {
        InstanceSpec spec = kinds_[k].prototype;
        spec.instance.id = InstanceId(static_cast<uint32_t>(fleet.instances.size()));
        spec.instance.name = kinds_[k].engine + "-" + std::to_string(n);
        fleet.pools.front().instances.push_back(spec.instance.id);
        fleet.instances.push_back(std::move(spec));
      }
    return fleet;
  }

  Result<double> AttainmentOf(const Mix& mix, json::object& first) const {
    double sum = 0;
    for (const uint64_t seed : options_.seeds) {
      Topology fleet = FleetOf(mix);
      fleet.seed = seed;
      GridCell cell = cell_;
      cell.seed = seed;
      Result<json::object> row = RunCellOn(fleet, grid_, cell, rate_scale_);
      if (!row.ok()) return row.error();
      json::object& figures = row->at("figures").as_object();
      const json::value& met = figures.at("slo_attainment");
      sum += met.is_number() ? met.to_number<double>() : 0;
      if (first.empty()) first = std::move(figures);
    }
    return sum / static_cast<double>(options_.seeds.size());
  }

  json::object Named(const Mix& mix) const {
    json::object counts;
    for (size_t k = 0; k < kinds_.size(); ++k) counts[kinds_[k].engine] = mix.counts[k];
    return counts;
  }

  const FindFleetOptions& options_;
  Grid grid_;
  GridCell cell_;
  Topology topology_;
  std::vector<Kind> kinds_;
  double rate_scale_ = 1;
  json::array tried_;
};

}  // namespace

Result<json::object> FindFleet(const FindFleetOptions& options) { return FleetSearch(options).Run(); }

}  // namespace foretoken
