#include "integration/metrics/metric_set.h"

#include <prometheus/metric_type.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <limits>

namespace foretoken {
namespace {

// Longer values than any name that an operator gives; what comes from elsewhere must not fill a scrape.
constexpr size_t kLabelBytesMost = 200;

}  // namespace

prometheus::ClientMetric& MetricSet::Sample(std::string_view name, std::string_view help, prometheus::MetricType type,
                                            Labels labels) {
  auto at = index_.find(name);
  if (at == index_.end()) {
    at = index_.emplace(std::string(name), families_.size()).first;
    families_.push_back({std::string(name), std::string(help), type, {}});
  }
  prometheus::ClientMetric& m = families_[at->second].metric.emplace_back();
  m.label.reserve(labels.size());
  for (const auto& [label, value] : labels)
    m.label.push_back({std::string(label), std::string(value.substr(0, kLabelBytesMost))});
  ++samples_;
  return m;
}

void MetricSet::Counter(std::string_view name, std::string_view help, double value, Labels labels) {
  Sample(name, help, prometheus::MetricType::Counter, labels).counter.value = value;
}

void MetricSet::Gauge(std::string_view name, std::string_view help, double value, Labels labels) {
  Sample(name, help, prometheus::MetricType::Gauge, labels).gauge.value = value;
}

void MetricSet::Histogram(std::string_view name, std::string_view help, const LatencyHistogram& h, Labels labels) {
  prometheus::ClientMetric::Histogram& out = Sample(name, help, prometheus::MetricType::Histogram, labels).histogram;
  out.sample_count = h.count();
  out.sample_sum = h.sum();
  uint64_t below = 0;
  for (size_t i = 0; i < LatencyHistogram::kBounds; ++i) {
    below += h.at(i);
    out.bucket.push_back({below, LatencyHistogram::Bound(i)});
  }
  out.bucket.push_back({h.count(), std::numeric_limits<double>::infinity()});
}

std::string MetricSet::Text() const { return prometheus::TextSerializer().Serialize(families_); }

}  // namespace foretoken
