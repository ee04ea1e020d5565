// MetricSet: metrics as values, gathered for one scrape and written in Prometheus' text format by prometheus-cpp. Nothing here counts:
// whoever owns a number hands it in.
#pragma once

#include <prometheus/client_metric.h>
#include <prometheus/metric_family.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "runtime/metrics/latency_histogram.h"

namespace foretoken {

inline constexpr std::string_view kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

class MetricSet {
 public:
  using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

  // A family has one kind and one help text: those of its first sample. Names as docs/operations.md lists them.
  void Counter(std::string_view name, std::string_view help, double value, Labels labels = {});
  void Counter(std::string_view name, std::string_view help, uint64_t value, Labels labels = {}) {
    Counter(name, help, static_cast<double>(value), labels);
  }
  void Gauge(std::string_view name, std::string_view help, double value, Labels labels = {});
  void Histogram(std::string_view name, std::string_view help, const LatencyHistogram& values, Labels labels = {});

  size_t samples() const { return samples_; }
  std::string Text() const;

 private:
  prometheus::ClientMetric& Sample(std::string_view name, std::string_view help, prometheus::MetricType type, Labels labels);

  std::vector<prometheus::MetricFamily> families_;  // in order of their first sample
  std::map<std::string, size_t, std::less<>> index_;
  size_t samples_ = 0;
};

}  // namespace foretoken
