#include "integration/accuracy/replay.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "runtime/base/ids.h"
#include "runtime/engine/engine_core.h"

namespace foretoken::accuracy {
namespace {

constexpr double kLowestFactor = 0.25, kHighestFactor = 4.0;
// The first requests of a run meet an engine that fills up: small batches, many prompts, kernels still being compiled. A law's
// bias there and its bias later differ by a few per cent, so a bias is believed as far as it exceeds that (a positive-part
// shrinkage estimate): nothing of 4 %, 84 % of 10 %, all but a thousandth of a factor of 2.
constexpr double kPhaseSpread = 0.04;

// The engine's loop with the exact composition of each step at hand (EmulatedEngine knows its summary).
class Replayer {
 public:
  Replayer(const MeasuredRun& run, const StepCost& cost, EngineCore& core)
      : run_(run),
        cost_(cost),
        core_(core),
        depth_(run.config.async_scheduling ? 2 : 1),
        served_(run.requests.size()),
        got_(run.requests.size(), 0) {}

  Result<std::vector<Served>> Run() {
    while (true) {
      if (!core_.HasRequests() && flying_.empty()) {
        if (next_ == run_.requests.size()) break;
        now_ = std::max(now_, run_.requests[next_].arrival);
      }
      if (Status s = TakeIn(); !s.ok()) return s.error();
      bool executed = false;
      if (core_.HasRequests()) {
        executed = Dispatch();
        if (depth_ > 1 && flying_.size() < depth_ && (executed || core_.HasRequests())) {
          if (!executed) now_ += kIdleSleep;
          if (!executed && ++idle_ > kGiveUp) return Stuck();
          continue;
        }
      } else if (flying_.empty()) {
        continue;
      }
      Complete();
      if (!executed && core_.HasRequests()) now_ += kIdleSleep;
      idle_ = executed || !flying_.empty() ? 0 : idle_ + 1;
      if (idle_ > kGiveUp) return Stuck();
    }
    return served_;
  }

 private:
  static constexpr Duration kIdleSleep = Duration::Millis(1);  // vLLM's loop, when a turn ran nothing
  static constexpr int kGiveUp = 1000;

  Error Stuck() const {
    return Error{"the engine stops with " + std::to_string(core_.waiting()) +
                 " requests waiting: too few KV blocks (--kv-blocks)"};
  }

  Status TakeIn() {
    for (; next_ < run_.requests.size() && run_.requests[next_].arrival <= now_; ++next_) {
      const MeasuredRequest& r = run_.requests[next_];
      EngineRequest request;
      request.id = RequestId(next_);
      request.arrival_key = r.arrival.seconds();
      request.prompt_tokens = r.prompt_tokens;
      request.max_tokens = request.output_tokens = r.output_tokens;
      if (Status s = core_.Add(request); !s.ok()) return Error{"request " + r.id + ": " + s.error().message};
    }
    return {};
  }

  bool Dispatch() {
    const Batch& batch = core_.Schedule();
    Instant end = now_;
    if (!batch.items.empty()) {
      step_.chunks.clear();
      step_.decode_ctx.clear();
      for (const ScheduledItem& item : batch.items) {
        if (item.prefill) {
          step_.chunks.push_back({item.tokens, item.computed, item.samples});
        } else {
          step_.decode_ctx.push_back(item.computed + item.tokens);
        }
      }
      const double ns = cost_.nanos(step_) * cost_.factor + static_cast<double>(cost_.host_overhead.nanos());
      end = std::max(now_, accelerator_free_) + Duration::FromNanos(ns);
      accelerator_free_ = end;
    }
    flying_.push_back(end);
    return !batch.items.empty();
  }

  void Complete() {
    now_ = std::max(now_, flying_.front());
    flying_.pop_front();
    const BatchResult& result = core_.Update();
    for (RequestId id : result.sampled) {
      const size_t i = id.value();
      if (got_[i]++ == 0) served_[i].ttft = now_ - run_.requests[i].arrival;
      served_[i].e2e = now_ - run_.requests[i].arrival;
    }
  }

  const MeasuredRun& run_;
  const StepCost& cost_;
  EngineCore& core_;
  size_t depth_;
  std::vector<Served> served_;
  std::vector<int64_t> got_;
  std::deque<Instant> flying_;  // ends of the batches in flight, oldest first
  StepComposition step_;
  Instant now_, accelerator_free_;
  size_t next_ = 0;
  int idle_ = 0;
};

double Quantile(std::vector<double> x, double q) {
  std::sort(x.begin(), x.end());
  const double at = q * static_cast<double>(x.size() - 1);
  const size_t i = static_cast<size_t>(at);
  return x[i] + (at - static_cast<double>(i)) * (x[std::min(i + 1, x.size() - 1)] - x[i]);
}

MetricError ErrorOf(const std::vector<double>& predicted, const std::vector<double>& measured) {
  MetricError e;
  e.requests = predicted.size();
  if (predicted.empty()) return e;
  double sum_predicted = 0, sum_measured = 0;
  for (size_t i = 0; i < predicted.size(); ++i) {
    sum_predicted += predicted[i];
    sum_measured += measured[i];
    e.mape += std::abs(predicted[i] / measured[i] - 1) / static_cast<double>(predicted.size());
  }
  e.mean_error = sum_predicted / sum_measured - 1;
  e.p50_error = Quantile(predicted, 0.5) / Quantile(measured, 0.5) - 1;
  e.p99_error = Quantile(predicted, 0.99) / Quantile(measured, 0.99) - 1;
  return e;
}

}  // namespace

Result<std::vector<Served>> Replay(const MeasuredRun& run, const StepCost& cost) {
  Result<std::unique_ptr<EngineCore>> core = MakeEngineCore(run.config);
  if (!core.ok()) return core.error();
  return Replayer(run, cost, **core).Run();
}

Accuracy Compare(const MeasuredRun& run, const std::vector<Served>& served, size_t skip) {
  std::vector<double> ttft[2], tpot[2], e2e[2];
  for (size_t i = skip; i < served.size(); ++i) {
    const MeasuredRequest& r = run.requests[i];
    ttft[0].push_back(served[i].ttft.seconds());
    ttft[1].push_back(r.ttft.seconds());
    e2e[0].push_back(served[i].e2e.seconds());
    e2e[1].push_back(r.e2e.seconds());
    if (r.output_tokens < 2 || r.e2e <= r.ttft) continue;  // TPOT is absent for an output of one token
    const double gaps = static_cast<double>(r.output_tokens - 1);
    tpot[0].push_back((served[i].e2e - served[i].ttft).seconds() / gaps);
    tpot[1].push_back((r.e2e - r.ttft).seconds() / gaps);
  }
  return {ErrorOf(ttft[0], ttft[1]), ErrorOf(tpot[0], tpot[1]), ErrorOf(e2e[0], e2e[1])};
}

Result<double> CalibrateFactor(const MeasuredRun& run, const StepCost& cost, size_t count) {
  count = std::min(count, run.requests.size());
  // Mean log of predicted over measured time per output token; grows with the factor. Queueing multiplies an error of the step
  // time in TTFT and E2E, but hardly in this.
  const auto bias = [&](double factor) -> Result<double> {
    StepCost tried = cost;
    tried.factor = cost.factor * factor;
    const Result<std::vector<Served>> served = Replay(run, tried);
    if (!served.ok()) return served.error();
    double sum = 0;
    size_t counted = 0;
    for (size_t i = 0; i < count; ++i) {
      const MeasuredRequest& r = run.requests[i];
      if (r.output_tokens < 2 || r.e2e <= r.ttft) continue;
      sum += std::log(((*served)[i].e2e - (*served)[i].ttft).seconds() / (r.e2e - r.ttft).seconds());
      ++counted;
    }
    return counted == 0 ? 0.0 : sum / static_cast<double>(counted);
  };
  double low = kLowestFactor, high = kHighestFactor;
  for (int i = 0; i < 16; ++i) {  // to 4 / 2^16 in the logarithm
    const double middle = std::sqrt(low * high);
    const Result<double> b = bias(middle);
    if (!b.ok()) return b.error();
    if (*b == 0) return 1.0;
    (*b > 0 ? high : low) = middle;
  }
  const double found = std::log(std::sqrt(low * high));
  if (std::abs(found) <= kPhaseSpread) return 1.0;
  return std::exp(found * (1 - kPhaseSpread * kPhaseSpread / (found * found)));
}

}  // namespace foretoken::accuracy
