// `foretoken validate FILE...`: reads topologies, fault plans, workloads and experiments, told apart by their keys. All errors
// of all files are reported at once; of a good file it says what is in it, so that a reader sees that it means what they think.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "configs/any_config.h"
#include "integration/cli/commands.h"

namespace foretoken {
namespace {

namespace json = boost::json;

struct Arguments {
  std::vector<std::string> files;
  std::vector<std::string> set;
  bool json = false;
};

// The request that capacities are stated for: a chat turn.
constexpr int64_t kPrompt = 1000;
constexpr int64_t kOutput = 200;

// Requests per second of kPrompt + kOutput tokens that an engine sustains by its predictors' step times: full prefill steps,
// and decode steps of as many sequences as fit.
double CapacityOf(const EngineSpec& engine) {
  const EngineConfig& c = engine.limits;
  const StepTimeModel& model = engine.predictor_step_time;
  const int64_t seqs = std::clamp<int64_t>(engine.kv_tokens() / (kPrompt + kOutput), 1, c.max_num_seqs);
  const double prefill_ns = model.NanosOf({.prefill_tokens = c.max_num_batched_tokens});
  const double decode_ns = model.NanosOf({.decode_seqs = seqs, .decode_kv_tokens = seqs * (kPrompt + kOutput / 2)});
  const double request_ns = prefill_ns * kPrompt / c.max_num_batched_tokens + decode_ns * kOutput / static_cast<double>(seqs);
  return 1e9 / request_ns;
}

std::string Number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", v);
  return text;
}

json::object Describe(const Topology& t) {
  json::object out{{"kind", "topology"},
                   {"policy", t.scheduler.policy},
                   {"predictor", NameOf(t.predictor.kind)},
                   {"sync_level", NameOf(t.sync.level)},
                   {"nodes", t.nodes.size()},
                   {"faults", t.faults.name}};
  double capacity = 0;
  json::array pools;
  for (const Pool& pool : t.pools) {
    json::array models, engines;
    for (const ModelId model : pool.models) models.emplace_back(t.models[model.value()]);
    for (const EngineSpec& engine : t.engines) {
      const auto uses = [&](InstanceId id) { return &t.EngineOf(id) == &engine; };
      const auto count = std::count_if(pool.instances.begin(), pool.instances.end(), uses);
      if (count == 0) continue;
      capacity += static_cast<double>(count) * CapacityOf(engine);
      engines.push_back(json::object{{"engine", engine.name},
                                     {"instances", count},
                                     {"step_time", engine.step_table.empty() ? "law" : engine.step_table},
                                     {"kv_tokens", engine.kv_tokens()},
                                     {"max_num_seqs", engine.limits.max_num_seqs},
                                     {"max_num_batched_tokens", engine.limits.max_num_batched_tokens},
                                     {"requests_per_second", CapacityOf(engine)}});
    }
    pools.push_back(json::object{{"name", pool.name}, {"models", models}, {"engines", engines}});
  }
  out["pools"] = pools;
  out["instances"] = t.instances.size();
  out["requests_per_second"] = capacity;
  return out;
}

json::object Describe(const FaultPlan& plan) {
  return {{"kind", "faults"}, {"name", plan.name}, {"links", plan.links.size()}, {"restarts", plan.restarts.size()}};
}

json::object Describe(const WorkloadSpec& w) {
  json::object out{{"kind", "workload"}, {"name", w.name}};
  if (w.synthetic) {
    out["requests"] = w.synthetic->requests;
    out["rate_per_second"] = w.synthetic->arrivals.rate_rps * w.rate_scale;
  } else {
    out["file"] = w.trace_file;
  }
  return out;
}

json::object Describe(const Experiment& e) {
  return {{"kind", "experiment"}, {"name", e.name}, {"question", e.question}, {"runs", e.runs()}};
}

void Print(const Topology& t, const json::object& about) {
  std::cout << "topology, " << t.instances.size() << " instances, policy " << t.scheduler.policy << ", predictor "
            << NameOf(t.predictor.kind) << ", sync " << NameOf(t.sync.level) << ", faults " << t.faults.name << "\n";
  for (const json::value& pool : about.at("pools").as_array()) {
    for (const json::value& value : pool.at("engines").as_array()) {
      const json::object& engine = value.as_object();
      std::cout << "  pool " << pool.at("name").as_string().c_str() << ": " << engine.at("instances").as_int64() << " x "
                << engine.at("engine").as_string().c_str() << ", step time " << engine.at("step_time").as_string().c_str()
                << ", " << engine.at("kv_tokens").as_int64() << " KV tokens, about "
                << Number(engine.at("requests_per_second").as_double()) << " requests/s each\n";
    }
  }
  std::cout << "  predicted capacity: about " << Number(about.at("requests_per_second").as_double()) << " requests/s of "
            << kPrompt << " prompt and " << kOutput << " output tokens\n";
}

void Print(const FaultPlan& plan, const json::object&) {
  std::cout << "fault plan \"" << plan.name << "\", " << plan.links.size() << " link rules, " << plan.restarts.size()
            << " restart rules\n";
}

void Print(const WorkloadSpec& w, const json::object&) {
  std::cout << "workload \"" << w.name << "\", ";
  if (w.synthetic) {
    std::cout << w.synthetic->requests << " synthetic requests at " << Number(w.synthetic->arrivals.rate_rps * w.rate_scale)
              << "/s\n";
  } else {
    std::cout << "trace " << w.trace_file << "\n";
  }
}

void Print(const Experiment& e, const json::object&) {
  std::cout << "experiment \"" << e.name << "\", " << e.runs() << " runs: " << e.question << "\n";
}

int Validate(const Arguments& a) {
  bool good = true;
  json::array files;
  for (const std::string& file : a.files) {
    const ConfigResult<AnyConfig> config = LoadAnyConfig(file, a.set);
    good &= config.ok();
    json::object entry{{"file", file}, {"ok", config.ok()}};
    json::array errors;
    if (config.ok()) {
      entry["contents"] = std::visit([](const auto& c) { return Describe(c); }, *config);
      if (!a.json) {
        std::cout << file << ": ok: ";
        std::visit([&entry](const auto& c) { Print(c, entry.at("contents").as_object()); }, *config);
      }
    } else {
      for (const ConfigError& e : config.errors().errors)
        errors.push_back(json::object{{"where", e.where}, {"path", e.path}, {"message", e.message}});
      if (!a.json) std::cerr << config.errors().ToString();
    }
    entry["errors"] = std::move(errors);
    files.push_back(std::move(entry));
  }
  if (a.json) std::cout << json::serialize(json::object{{"ok", good}, {"files", files}}) << "\n";
  return good ? kExitOk : kExitUsage;
}

}  // namespace

void AddValidateCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("validate", "Check topology, fault, workload and experiment files; all errors at once");
  c->add_option("files", a->files, "Files (YAML); their kind is told from their keys")->required();
  c->add_option("--set", a->set, "Override a value: path=value (repeatable; holds for every file)")->expected(1);
  c->add_flag("--json", a->json, "Print one JSON object");
  c->footer(
      "Example:\n"
      "  foretoken validate configs/topologies/*.yaml configs/faults/*.yaml\n"
      "  foretoken validate configs/topologies/small.yaml --set scheduler.policy=lmetric");
  c->callback([a, &exit_code] { exit_code = Validate(*a); });
}

}  // namespace foretoken
