#include "integration/cli/accuracy_predictors.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <utility>
#include <vector>

#include "integration/accuracy/measured_run.h"
#include "integration/accuracy/prediction_run.h"
#include "integration/accuracy/recorded_predictions.h"
#include "integration/cli/commands.h"
#include "integration/engines/vllm/recording.h"
#include "integration/tables/csv.h"

namespace foretoken {
namespace {

namespace json = boost::json;
using accuracy::LengthKnowledge;
using accuracy::PredictionRun;
using accuracy::PredictionScore;

// What is believed of any engine of which nothing is known (an 8B-class model on a data-centre GPU, as for a topology without a
// step law). Nothing here comes from a recording.
constexpr AffineStepTime::Coefficients kGeneric{6.5e6, 45e3, 20e3, 30};

struct Asked {
  PredictorKind kind;
  bool expected_arrivals;
  const char* name;
};
constexpr Asked kPredictors[] = {{PredictorKind::kReference, false, "reference"},
                                 {PredictorKind::kPattern, false, "pattern"},
                                 {PredictorKind::kPatternReuse, false, "pattern_reuse"},
                                 {PredictorKind::kTimeline, false, "timeline"},
                                 {PredictorKind::kTimeline, true, "timeline, arrivals"}};

// A step-time model that predictors start from, under the name that the report gives it.
struct Believed {
  const char* name;
  StepTimeModel model;
  bool calibrate;
};

struct Subject {
  std::string name;
  PredictionRun run;
  std::vector<Believed> beliefs;
  std::vector<LengthKnowledge> lengths;
};

struct Row {
  const char* predictor;
  const char* step_time;
  LengthKnowledge lengths;
  PredictionScore score;
};

int Fail(int code, const std::string& message) {
  std::cerr << "foretoken accuracy: " << message << "\n";
  return code;
}

StepTimeModel Model(AffineStepTime::Coefficients c) {
  StepTimeModel m;
  m.law = std::make_shared<const AffineStepTime>(c);
  return m;
}

std::vector<std::string> Instances(const std::string& directory) {
  std::vector<std::string> found;
  std::error_code ec;
  for (const auto& entry : std::filesystem::directory_iterator(directory, ec)) {
    const std::string name = entry.path().filename().string();
    const size_t end = name.find(".jsonl");
    if (name.starts_with("steps_") && end != std::string::npos) found.push_back(name.substr(6, end - 6));
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::string Existing(const std::string& stem) {
  const std::string zipped = stem + ".jsonl.gz";
  return std::filesystem::exists(zipped) ? zipped : stem + ".jsonl";
}

// hello's "step_law_ms": ms per step, per prefill token, per decode sequence, per thousand KV tokens. Absent from a real engine's.
std::optional<StepTimeModel> StatedLaw(const std::string& hello_path) {
  const Result<std::string> text = tables::ReadTextFile(hello_path);
  if (!text.ok()) return std::nullopt;
  json::error_code ec;
  const json::value value = json::parse(*text, ec);
  if (ec || !value.is_object()) return std::nullopt;
  const json::value* law = value.as_object().if_contains("step_law_ms");
  if (law == nullptr || !law->is_string()) return std::nullopt;
  std::array<double, 4> ms{};
  const char *at = law->as_string().data(), *const end = at + law->as_string().size();
  for (double& x : ms) {
    const auto [next, error] = std::from_chars(at, end, x);
    if (error != std::errc()) return std::nullopt;
    at = next == end ? end : next + 1;
  }
  return Model({ms[0] * 1e6, ms[1] * 1e6, ms[2] * 1e6, ms[3] * 1e3});
}

Result<std::vector<Subject>> ReadRecordings(const PredictorAccuracyRequest& request) {
  std::vector<Subject> subjects;
  for (const std::string& instance : Instances(request.truth)) {
    const std::string stem = request.truth + "/";
    const Result<Recording> recording =
        ReadRecording(Existing(stem + "steps_" + instance), Existing(stem + "trace_" + instance));
    if (!recording.ok()) return recording.error();
    Subject s{instance, accuracy::RunOfRecording(*recording), {}, {}};
    s.beliefs.push_back({"generic, calibrated", Model(kGeneric), true});
    if (const auto law = StatedLaw(stem + "hello_" + instance + ".json")) s.beliefs.push_back({"stated law", *law, false});
    if (request.table) s.beliefs.push_back({"table, calibrated", *request.table, true});
    s.lengths = {LengthKnowledge::kLearned, LengthKnowledge::kLearnedWithin, LengthKnowledge::kMaxTokens};
    subjects.push_back(std::move(s));
  }
  return subjects;
}

Result<std::vector<Subject>> ReadMeasurement(const PredictorAccuracyRequest& request) {
  if (!request.table) return Error{request.truth + " holds no steps_*.jsonl: --table is needed to make steps up"};
  const Result<accuracy::MeasuredRun> measured = accuracy::ReadMeasuredRun(request.truth, request.kv_blocks);
  if (!measured.ok()) return measured.error();
  for (const std::string& a : measured->assumptions) std::cerr << "assumed: " << a << "\n";
  Result<PredictionRun> run = accuracy::RunOfMeasurement(*measured, *request.table);
  if (!run.ok()) return run.error();
  std::vector<Subject> subjects(1);
  subjects[0] = {std::filesystem::path(request.truth).filename().string(), std::move(*run), {}, {LengthKnowledge::kLearned}};
  subjects[0].beliefs.push_back({"table", *request.table, false});
  return subjects;
}

json::object Json(const accuracy::MetricScore& m) {
  json::object out = {{"count", m.count},
                      {"ape", {{"p50", m.ape_p50}, {"p95", m.ape_p95}, {"p99", m.ape_p99}}},
                      {"bias", m.bias},
                      {"coverage", {{"p50", m.coverage_p50}, {"p90", m.coverage_p90}}}};
  out["spearman"] = m.spearman ? json::value(*m.spearman) : json::value(nullptr);
  return out;
}

json::object Json(const Row& row) {
  return {{"predictor", row.predictor},
          {"step_time", row.step_time},
          {"lengths", accuracy::LengthKnowledgeName(row.lengths)},
          {"ttft", Json(row.score.ttft)},
          {"e2e", Json(row.score.e2e)}};
}

void PrintMetric(const accuracy::MetricScore& m) {
  std::printf(" | %5.1f %6.1f %6.1f %+7.1f %6.3f %4.0f/%3.0f", 100 * m.ape_p50, 100 * m.ape_p95, 100 * m.ape_p99, 100 * m.bias,
              m.spearman.value_or(0), 100 * m.coverage_p50, 100 * m.coverage_p90);
}

void Print(const Subject& s, const std::vector<Row>& rows) {
  std::printf("%s: %lld requests, %lld steps; errors and shares in per cent\n", s.name.c_str(),
              static_cast<long long>(s.run.requests), static_cast<long long>(s.run.steps));
  std::printf("%-19s %-19s %-18s | %-43s | %s\n", "step time", "output length", "predictor",
              "TTFT: APE p50/p95/p99, bias, rank,", "E2E: the same");
  std::printf("%-19s %-19s %-18s | %43s |\n", "", "", "", "covered by p50/p90");
  for (const Row& row : rows) {
    std::printf("%-19s %-19s %-18s", row.step_time, std::string(accuracy::LengthKnowledgeName(row.lengths)).c_str(),
                row.predictor);
    PrintMetric(row.score.ttft);
    PrintMetric(row.score.e2e);
    std::printf("\n");
  }
}

Result<std::vector<Row>> ScoreAll(const Subject& s) {
  std::vector<Row> rows;
  for (const Believed& believed : s.beliefs) {
    for (const LengthKnowledge lengths : s.lengths) {
      for (const Asked& asked : kPredictors) {
        const Result<PredictionScore> score = accuracy::ScorePredictions(
            s.run, {asked.kind, believed.model, believed.calibrate, lengths, asked.expected_arrivals, 1});
        if (!score.ok()) return score.error();
        rows.push_back({asked.name, believed.name, lengths, *score});
      }
    }
  }
  return rows;
}

}  // namespace

bool HoldsRecordings(const std::string& directory) { return !Instances(directory).empty(); }

int RunPredictorAccuracy(const PredictorAccuracyRequest& request) {
  const Result<std::vector<Subject>> subjects =
      HoldsRecordings(request.truth) ? ReadRecordings(request) : ReadMeasurement(request);
  if (!subjects.ok()) return Fail(kExitUsage, subjects.error().message);
  json::array instances;
  for (const Subject& s : *subjects) {
    const Result<std::vector<Row>> rows = ScoreAll(s);
    if (!rows.ok()) return Fail(kExitFailed, s.name + ": " + rows.error().message);
    if (!request.json) {
      Print(s, *rows);
      continue;
    }
    json::array listed;
    for (const Row& row : *rows) listed.push_back(Json(row));
    instances.push_back(
        json::object{{"instance", s.name}, {"requests", s.run.requests}, {"steps", s.run.steps}, {"rows", std::move(listed)}});
  }
  if (request.json) std::cout << json::serialize(json::object{{"instances", std::move(instances)}}) << "\n";
  return kExitOk;
}

}  // namespace foretoken
