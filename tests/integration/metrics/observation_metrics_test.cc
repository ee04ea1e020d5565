#include "integration/metrics/observation_metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace foretoken {
namespace {

Observation Fleet(size_t engines) {
  Observation o;
  o.facts = {"serve", "test", "auto", "timeline", "full", {Duration::Seconds(1), Duration::Millis(50)}, false};
  for (size_t k = 0; k < engines; ++k) {
    InstanceSeen i;
    i.name = "h100-" + std::to_string(k);
    i.model = "llama";
    i.mirrored = true;
    i.mirror.total_blocks = 100;
    i.mirror.free_blocks = 25;
    i.mirror.running = 3;
    o.instances.push_back(std::move(i));
  }
  return o;
}

MetricSet MetricsOf(const Observation& o) {
  MetricSet set;
  AddTotals(o, set);
  AddObservation(o, set);
  return set;
}

size_t Count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

TEST(ObservationMetricsTest, SamplesGrowWithEnginesAloneAndUpToALimit) {
  const size_t one = MetricsOf(Fleet(1)).samples();
  const size_t two = MetricsOf(Fleet(2)).samples();
  const size_t each = two - one;
  EXPECT_LE(each, 40u);
  EXPECT_EQ(MetricsOf(Fleet(100)).samples(), one + 99 * each);
  const Observation huge = Fleet(kEnginesMost + 7);
  EXPECT_EQ(MetricsOf(huge).samples(), one + (kEnginesMost - 1) * each);
  EXPECT_NE(MetricsOf(huge).Text().find("foretoken:metrics_engines_left_out 7\n"), std::string::npos);
}

TEST(ObservationMetricsTest, RequestsAndDecisionsMakeNoSamples) {
  Observation o = Fleet(2);
  const size_t before = MetricsOf(o).samples();
  o.decisions.resize(50);
  o.events.resize(200);
  o.totals.arrived = 1'000'000;
  EXPECT_EQ(MetricsOf(o).samples(), before);
}

TEST(ObservationMetricsTest, TellsAnEngineAsVllmWould) {
  const std::string text = MetricsOf(Fleet(1)).Text();
  EXPECT_NE(text.find("vllm:num_requests_running{model_name=\"llama\",engine=\"h100-0\"} 3\n"), std::string::npos) << text;
  EXPECT_NE(text.find("vllm:kv_cache_usage_perc{model_name=\"llama\",engine=\"h100-0\"} 0.75\n"), std::string::npos) << text;
}

TEST(ObservationMetricsTest, AnEngineTakenFromAGatewayIsGoneAndADeadOneOfAClusterIsDown) {
  Observation o = Fleet(2);
  o.instances[0].state = InstanceState::kDead;
  EXPECT_EQ(Count(MetricsOf(o).Text(), "foretoken:engine_up{"), 2u);
  EXPECT_NE(MetricsOf(o).Text().find("foretoken:engine_up{engine=\"h100-0\"} 0\n"), std::string::npos);
  o.instances[0].gone = true;
  EXPECT_EQ(MetricsOf(o).Text().find("h100-0"), std::string::npos);
}

TEST(ObservationMetricsTest, WhatIsNotKnownIsLeftOutAndNotNought) {
  const std::string text = MetricsOf(Fleet(1)).Text();
  EXPECT_EQ(text.find("foretoken:slo_headroom"), std::string::npos);
  EXPECT_EQ(text.find("foretoken:prediction_error"), std::string::npos);
  EXPECT_EQ(text.find("foretoken:slo_attainment"), std::string::npos);
}

TEST(MetricSetTest, HostileLabelsAreEscapedAndCut) {
  MetricSet set;
  const std::string name = "a\"} 1\nfake 2\\" + std::string(5000, 'x');
  set.Gauge("g", "h", 1, {{"engine", name}});
  const std::string text = set.Text();
  EXPECT_EQ(Count(text, "\n"), 3u) << text;
  EXPECT_LT(text.size(), 400u);
}

TEST(MetricSetTest, AHistogramAddsUp) {
  LatencyHistogram h;
  for (int k = 0; k < 100; ++k) h.Add(Duration::Millis(k));
  MetricSet set;
  set.Histogram("h_seconds", "help", h);
  const std::string text = set.Text();
  EXPECT_NE(text.find("h_seconds_count 100\n"), std::string::npos);
  EXPECT_NE(text.find("h_seconds_bucket{le=\"+Inf\"} 100\n"), std::string::npos);
  EXPECT_NE(text.find("h_seconds_bucket{le=\"0.0512\"} 52\n"), std::string::npos) << text;
}

}  // namespace
}  // namespace foretoken
