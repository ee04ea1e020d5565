#include "integration/dashboard/merge_observations.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace foretoken {
namespace {

namespace json = boost::json;

json::object Observed(const char* text) { return json::parse(text).as_object(); }

// A node with a SCHEDULER, and one with the engine that both know.
std::vector<NodeObserved> Two() {
  return {{"router", "",
           Observed(R"({"uptime": 10.5, "incomplete": 1, "system": {"host": "node", "name": "router", "policy": "auto"},
    "totals": {"arrived": 30, "decided": 31, "open": 2}, "scheduler": {"decisions": 31},
    "window": {"seconds": 10.0, "arrivals_per_second": 3.0, "ended": 30, "slo_attainment": 0.9,
               "ttft": {"count": 30, "mean": 0.1, "p50": 0.1, "p99": 0.2}, "ttft_error": {"count": 30, "mean": 0.5, "bias": -0.5, "p50": 0.4}},
    "headroom": {"instances_needed": 1.5},
    "instances": [{"instance": "h100-0", "mirrored": false, "term": 1, "outstanding": 2}],
    "decisions": [{"number": "0-31", "seconds_ago": 0.5}, {"number": "0-30", "seconds_ago": 1.5}],
    "events": [{"number": 4, "seconds_ago": 3.0, "kind": "gap"}]})")},
          {"gpu", "", Observed(R"({"uptime": 20.5, "incomplete": 0, "system": {"host": "node", "name": "gpu", "policy": "auto"},
    "totals": {"arrived": 10, "decided": 10, "open": 1}, "scheduler": {"decisions": 10},
    "window": {"seconds": 10.0, "arrivals_per_second": 1.0, "ended": 10, "slo_attainment": 0.5,
               "ttft": {"count": 10, "mean": 0.5, "p50": 0.3, "p99": 0.4}, "ttft_error": {"count": 0, "mean": 0.0, "bias": 0.0, "p50": 9.0}},
    "headroom": null,
    "instances": [{"instance": "h100-0", "mirrored": true, "term": 1, "outstanding": 1, "running": 7}],
    "decisions": [{"number": "0-31", "seconds_ago": 1.0}], "events": [{"number": 4, "seconds_ago": 1.0, "kind": "resync"}]})")}};
}

TEST(MergeObservationsTest, CountsAreSummedAndMeansWeighted) {
  const json::object o = MergeObservations("small", Two(), 7, 123);
  EXPECT_EQ(o.at("observation").to_number<int>(), 7);
  EXPECT_EQ(o.at("totals").at("arrived").to_number<int>(), 40);
  EXPECT_EQ(o.at("totals").at("shed").to_number<int>(), 0) << "what no node counted";
  EXPECT_EQ(o.at("scheduler").at("decisions").to_number<int>(), 41);
  const json::object& w = o.at("window").as_object();
  EXPECT_DOUBLE_EQ(w.at("arrivals_per_second").to_number<double>(), 4);
  EXPECT_DOUBLE_EQ(w.at("slo_attainment").to_number<double>(), (27 + 5) / 40.0);
  EXPECT_DOUBLE_EQ(w.at("ttft").at("mean").to_number<double>(), 0.2);
  EXPECT_DOUBLE_EQ(w.at("ttft").at("p99").to_number<double>(), 0.4);
  EXPECT_EQ(w.at("ttft").at("count").to_number<int>(), 40);
  EXPECT_DOUBLE_EQ(w.at("ttft_error").at("bias").to_number<double>(), -0.5) << "who judged nothing says nothing";
  EXPECT_DOUBLE_EQ(w.at("ttft_error").at("p50").to_number<double>(), 0.4);
  EXPECT_DOUBLE_EQ(w.at("e2e").at("p50").to_number<double>(), 0);
  EXPECT_EQ(o.at("system").at("name").as_string(), "small");
  EXPECT_EQ(o.at("system").at("host").as_string(), "cluster");
  EXPECT_DOUBLE_EQ(o.at("headroom").at("instances_needed").to_number<double>(), 1.5);
  EXPECT_EQ(o.at("incomplete").to_number<int>(), 1);
}

TEST(MergeObservationsTest, AnInstanceIsShownOnceAsTheOwnerOfItsMirrorKnowsIt) {
  const json::object o = MergeObservations("small", Two(), 1, 1);
  ASSERT_EQ(o.at("instances").as_array().size(), 1u);
  const json::object& i = o.at("instances").as_array()[0].as_object();
  EXPECT_EQ(i.at("running").to_number<int>(), 7);
  EXPECT_EQ(i.at("outstanding").to_number<int>(), 3);
}

TEST(MergeObservationsTest, TheLatestOfAllComesFirstAndNoNumberIsTwo) {
  const json::object o = MergeObservations("small", Two(), 1, 1);
  const json::array& d = o.at("decisions").as_array();
  ASSERT_EQ(d.size(), 3u);
  EXPECT_EQ(d[0].at("number").as_string(), "router-0-31");
  EXPECT_EQ(d[1].at("number").as_string(), "gpu-0-31");
  const json::array& e = o.at("events").as_array();
  ASSERT_EQ(e.size(), 2u);
  EXPECT_EQ(e[0].at("kind").as_string(), "resync");
  EXPECT_NE(e[0].at("number"), e[1].at("number"));
}

TEST(MergeObservationsTest, ANodeThatDoesNotAnswerIsNamed) {
  auto nodes = Two();
  nodes[1] = {"gpu", "connection refused", {}};
  json::object o = MergeObservations("small", nodes, 1, 1);
  EXPECT_EQ(o.at("nodes").as_array()[1].at("why").as_string(), "connection refused");
  EXPECT_FALSE(o.at("nodes").as_array()[1].at("answers").as_bool());
  EXPECT_EQ(o.at("totals").at("arrived").to_number<int>(), 30);
  EXPECT_EQ(o.at("incomplete").to_number<int>(), 2);
  nodes[0] = {"router", "connection refused", {}};
  o = MergeObservations("small", nodes, 1, 1);  // nobody at all
  EXPECT_EQ(o.at("totals").at("arrived").to_number<int>(), 0);
  EXPECT_DOUBLE_EQ(o.at("window").at("ttft").at("p50").to_number<double>(), 0);
  EXPECT_TRUE(o.at("instances").as_array().empty());
}

}  // namespace
}  // namespace foretoken
