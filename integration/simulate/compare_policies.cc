#include "integration/simulate/compare_policies.h"

#include <algorithm>
#include <iomanip>
#include <sstream>

#include "integration/simulate/compose_run.h"
#include "integration/simulate/run_report.h"

namespace foretoken {
namespace {

class Progress final : public RunObserver {
 public:
  Progress(const std::function<void(size_t, size_t)>& show, size_t run, size_t runs) : show_(show), run_(run), runs_(runs) {}
  void OnDecision(const DecisionRecord&) override {}
  void OnProgress(size_t arrived, size_t total) override { show_(run_ * total + arrived, runs_ * total); }

 private:
  const std::function<void(size_t, size_t)>& show_;
  size_t run_, runs_;
};

PolicyFigures FiguresOf(const boost::json::object& report) {
  const auto figure = [&](const char* latency, const char* key) {
    const boost::json::value& v = report.at(latency);
    return v.is_object() ? v.as_object().at(key).to_number<double>() : 0;
  };
  PolicyFigures f;
  f.policy = report.at("policy").as_string();
  f.ttft_mean = figure("ttft", "mean");
  f.ttft_p99 = figure("ttft", "p99");
  f.e2e_mean = figure("e2e", "mean");
  f.e2e_p99 = figure("e2e", "p99");
  if (report.at("slo_attainment").is_number()) f.slo_attainment = report.at("slo_attainment").to_number<double>();
  f.completed = report.at("completed").to_number<size_t>();
  f.requests = report.at("requests").to_number<size_t>();
  return f;
}

}  // namespace

Result<std::vector<PolicyFigures>> ComparePolicies(const Topology& topology, const Trace& trace,
                                                   const std::vector<std::string>& policies,
                                                   const std::function<void(size_t, size_t)>& show) {
  std::vector<PolicyFigures> out;
  for (size_t k = 0; k < policies.size(); ++k) {
    Topology one = topology;
    one.scheduler.policy = policies[k];
    auto options = ComposeRun(one, trace);
    if (!options.ok()) return options.error();
    Progress progress(show, k, policies.size());
    auto result = RunVirtual(*options, trace, &progress);
    if (!result.ok()) return result.error();
    out.push_back(FiguresOf(ReportRun({&one, &trace, 0, ""}, *result)));
  }
  return out;
}

void PrintComparison(const std::vector<PolicyFigures>& figures, std::ostream& out) {
  if (figures.empty()) return;
  constexpr int kBar = 24;
  const auto best = [&](double PolicyFigures::*m, bool highest) {
    const auto less = [&](const PolicyFigures& a, const PolicyFigures& b) { return a.*m < b.*m; };
    return highest ? (*std::max_element(figures.begin(), figures.end(), less)).*m
                   : (*std::min_element(figures.begin(), figures.end(), less)).*m;
  };
  const auto cell = [&](double value, double best_value, double scale, int precision) {
    std::ostringstream s;
    s << std::fixed << std::setprecision(precision) << value * scale << (value == best_value ? "*" : " ");
    out << std::setw(12) << s.str();
  };
  const double b_ttft = best(&PolicyFigures::ttft_mean, false), b_ttft99 = best(&PolicyFigures::ttft_p99, false);
  const double b_e2e = best(&PolicyFigures::e2e_mean, false), b_slo = best(&PolicyFigures::slo_attainment, true);
  out << "  policy            TTFT mean    TTFT p99    E2E mean     SLO met\n"
      << "                         (ms)         (s)         (s)         (%)\n";
  for (const PolicyFigures& f : figures) {
    out << "  " << std::left << std::setw(15) << f.policy << std::right;
    cell(f.ttft_mean, b_ttft, 1e3, 0);
    cell(f.ttft_p99, b_ttft99, 1, 2);
    cell(f.e2e_mean, b_e2e, 1, 2);
    cell(f.slo_attainment, b_slo, 100, 1);
    const int filled = static_cast<int>(f.slo_attainment * kBar + 0.5);
    out << "  " << std::string(static_cast<size_t>(filled), '#') << std::string(static_cast<size_t>(kBar - filled), '.')
        << "\n";
  }
  out << "  * best of its column; the bar shows the share of requests that met both targets\n";
}

}  // namespace foretoken
