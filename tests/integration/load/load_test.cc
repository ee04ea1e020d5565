// Fake engines and the load generator, one against the other in one thread. No test depends on how fast the machine is.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "integration/http/event_loop.h"
#include "integration/http/http_fetch.h"
#include "integration/load/fake_engine.h"
#include "integration/load/load_client.h"

namespace foretoken {
namespace {

class LoadTest : public ::testing::Test {
 protected:
  LoadTest() : loop_(std::move(EventLoop::Make()).value()) {}

  FakeEngine& Engine(FakeEngineOptions options = {}) {
    engines_.push_back(std::make_unique<FakeEngine>(*loop_, options));
    const auto port = engines_.back()->Listen("127.0.0.1", 0);
    EXPECT_TRUE(port.ok());
    load_.targets.push_back({"127.0.0.1", *port});
    return *engines_.back();
  }
  static FakeEngineOptions With(std::initializer_list<std::pair<std::string, std::string>> set) {
    FakeEngineOptions options;
    for (const auto& [key, value] : set) {
      const Status status = SetFakeEngineOption(options, key, value);
      EXPECT_TRUE(status.ok()) << key;
    }
    return options;
  }

  std::unique_ptr<EventLoop> loop_;
  std::vector<std::unique_ptr<FakeEngine>> engines_;
  LoadOptions load_;
};

TEST_F(LoadTest, EveryRequestOfAnOpenLoopIsAnsweredAndCountedOnBothSides) {
  FakeEngine& a = Engine(With({{"ttft", "2ms"}, {"itl", "500us"}}));
  FakeEngine& b = Engine(With({{"itl", "1ms"}, {"per_chunk", "4"}}));
  const LoadResult r = RunOpenLoop(*loop_, load_, 500, Duration::Millis(300));
  EXPECT_GT(r.offered, 50u);
  EXPECT_EQ(r.ok, r.offered) << (r.errors.empty() ? "" : r.errors.begin()->first);
  EXPECT_EQ(a.counters().completed + b.counters().completed, r.ok);
  EXPECT_EQ(r.engines.size(), 2u);
  EXPECT_EQ(r.ttft.size(), r.ok);
  EXPECT_EQ(r.chunk_transit.size(), a.counters().completed * 16 + b.counters().completed * 4);
  for (const int64_t ns : r.transit) EXPECT_GT(ns, 0);
}

TEST_F(LoadTest, AFirstTokenNeverComesBeforeTheEnginesDelay) {
  Engine(With({{"ttft", "30ms"}}));
  for (const bool stream : {true, false}) {
    load_.stream = stream;
    const LoadResult r = RunBurst(*loop_, load_, 20, Duration::Millis(10));
    ASSERT_EQ(r.ok, 20u);
    for (const int64_t ns : r.ttft) EXPECT_GE(ns, 30'000'000);
  }
}

TEST_F(LoadTest, ABurstIsOpenAtOneTime) {
  FakeEngine& e = Engine(With({{"ttft", "0"}, {"itl", "30ms"}}));
  const LoadResult r = RunBurst(*loop_, load_, 200, Duration::Millis(50));
  EXPECT_EQ(r.ok, 200u);
  EXPECT_EQ(r.peak_in_flight, 200u);
  EXPECT_EQ(e.counters().max_active, 200u);
}

TEST_F(LoadTest, ASaturatingLoadUsesItsConnectionsOverAndOver) {
  Engine();
  load_.stream = false;
  const LoadResult r = RunSaturated(*loop_, load_, 8, Duration::Millis(20), Duration::Millis(200));
  EXPECT_EQ(r.failed(), 0u);
  EXPECT_GT(r.ok, 100u);
  EXPECT_EQ(r.dials, 8u);
}

TEST_F(LoadTest, EachFaultIsSeenAsWhatItIs) {
  const std::vector<std::pair<std::string, std::string>> faults = {
      {"500", "status 500"}, {"503", "status 503"}, {"429", "status 429"}, {"400", "status 400"},      {"close", "reset"},
      {"die", "reset"},      {"hang", "timeout"},   {"stall", "timeout"},  {"errevent", "error event"}};
  load_.timeout = Duration::Millis(200);
  for (const auto& [mode, seen] : faults) {
    load_.targets.clear();
    FakeEngine& e = Engine(With({{"mode", mode}, {"die_after", "3"}}));
    const LoadResult r = RunBurst(*loop_, load_, 5, Duration::Millis(5));
    EXPECT_EQ(r.errors, (std::map<std::string, uint64_t>{{seen, 5}})) << mode;
    EXPECT_EQ(e.counters().completed, 0u) << mode;
    EXPECT_EQ(e.counters().received, 5u) << mode;
    loop_->RunUntil(EventLoop::Now() + Duration::Millis(20));
    EXPECT_EQ(e.counters().active, 0u) << mode;
  }
}

TEST_F(LoadTest, AnEngineThatRefusesConnectionsDoesNotMakeTheLoadSpin) {
  Engine();
  engines_.clear();
  const LoadResult r = RunSaturated(*loop_, load_, 4, Duration(), Duration::Millis(50));
  EXPECT_EQ(r.ok, 0u);
  EXPECT_GT(r.errors.at("refused"), 0u);
  EXPECT_LE(r.failed(), 4u * 60);
}

TEST_F(LoadTest, OptionsAreSetAndStatisticsReadWhileItRuns) {
  FakeEngine& e = Engine();
  const uint16_t port = load_.targets[0].port;
  Result<HttpAnswer> set = Error{""}, bad = Error{""}, stats = Error{""}, metrics = Error{""};
  std::thread asker([&] {
    set = HttpFetch("127.0.0.1", port, "/_ctl?ttft=7ms&mode=429&health=bad", Duration::Seconds(5));
    bad = HttpFetch("127.0.0.1", port, "/_ctl?itl=7", Duration::Seconds(5));
    stats = HttpFetch("127.0.0.1", port, "/_stats", Duration::Seconds(5));
    metrics = HttpFetch("127.0.0.1", port, "/metrics", Duration::Seconds(5));
    loop_->Stop();
  });
  loop_->Run();
  asker.join();
  ASSERT_TRUE(set.ok() && bad.ok() && stats.ok() && metrics.ok());
  EXPECT_EQ(e.options().ttft, Duration::Millis(7));
  EXPECT_EQ(e.options().mode, "429");
  EXPECT_FALSE(e.options().healthy);
  EXPECT_EQ(bad->status, 400);
  EXPECT_NE(bad->body.find("20ms"), std::string::npos);
  EXPECT_EQ(boost::json::parse(stats->body).at("received").to_number<int>(), 0);
  EXPECT_NE(metrics->body.find("vllm:num_requests_running{"), std::string::npos);
}

TEST(ParseTargetTest, TakesAUrlWithAnAddressAndAPortOnly) {
  EXPECT_EQ(ParseTarget("http://127.0.0.1:8000/")->port, 8'000);
  EXPECT_EQ(ParseTarget("localhost:1")->host, "127.0.0.1");
  for (const char* wrong :
       {"http://127.0.0.1", "https://127.0.0.1:1", "http://example.org:80", "127.0.0.1:0", "127.0.0.1:99999"})
    EXPECT_FALSE(ParseTarget(wrong).ok()) << wrong;
}

}  // namespace
}  // namespace foretoken
