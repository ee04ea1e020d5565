// An emulated engine behind HTTP, asked by the load generator in the same thread. Nothing depends on how fast the machine is: a step may
// be late, never early.
#include "integration/engines/emulated/emulated_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

#include "integration/http/http_fetch.h"
#include "integration/load/load_client.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken {
namespace {

class EmulatedServerTest : public ::testing::Test {
 protected:
  EmulatedServerTest() : loop_(std::move(EventLoop::Make()).value()) {
    EmulatedServerOptions o;
    o.name = "gpu-0";
    o.models = {"m"};
    o.engine.config.max_num_seqs = 8;
    o.engine.config.max_model_len = 4'096;
    o.engine.step_time.law =
        std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{2e6, 10e3, 0, 0});  // 2 ms + 10 us a token
    auto server = EmulatedServer::Make(*loop_, o);
    EXPECT_TRUE(server.ok());
    server_ = std::move(server).value();
    const auto port = server_->Listen("127.0.0.1", 0);
    EXPECT_TRUE(port.ok());
    load_.targets = {{"127.0.0.1", *port}};
    load_.model = "m";
  }

  // What the server says, asked from another thread while the loop runs.
  std::string Fetch(const std::string& path) {
    std::string body;
    std::atomic<bool> done{false};
    std::thread asker([&] {
      const auto answer = HttpFetch("127.0.0.1", load_.targets[0].port, path, Duration::Seconds(10));
      body = answer.ok() ? answer->body : answer.error().message;
      done = true;
    });
    while (!done) loop_->RunUntil(EventLoop::Now() + Duration::Millis(5));
    asker.join();
    return body;
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<EmulatedServer> server_;
  LoadOptions load_;
};

TEST_F(EmulatedServerTest, AnswersTakeTheStepsThatTheEngineTakes) {
  load_.tokens = 10;
  for (const bool stream : {true, false}) {
    load_.stream = stream;
    LoadResult r = RunBurst(*loop_, load_, 1, Duration::Millis(1));
    ASSERT_EQ(r.ok, 1u) << r.errors.begin()->first;
    EXPECT_EQ(r.engines.at("gpu-0"), 1u);
    EXPECT_GE(r.e2e[0], 10 * 2'000'000);  // a step per token
  }
}

TEST_F(EmulatedServerTest, MoreRequestsThanSeatsWaitTheirTurn) {
  load_.tokens = 5;
  LoadResult r = RunBurst(*loop_, load_, 24, Duration::Millis(1));
  ASSERT_EQ(r.ok, 24u);
  EXPECT_GE(QuantileOf(r.e2e, 1), 3 * 5 * 2'000'000);  // three rounds of eight
}

TEST_F(EmulatedServerTest, RequestsThatItCannotServeAreRefused) {
  load_.model = "other";
  EXPECT_EQ(RunBurst(*loop_, load_, 3, Duration::Millis(1)).errors.at("status 404"), 3u);
  load_.model = "m";
  load_.prompt_bytes = 4 * 5'000;  // tokens, over max_model_len
  EXPECT_EQ(RunBurst(*loop_, load_, 2, Duration::Millis(1)).errors.at("status 400"), 2u);
}

TEST_F(EmulatedServerTest, ARequestWhoseClientLeavesEndsInTheEngine) {
  load_.tokens = 2'000;  // four seconds
  load_.timeout = Duration::Millis(100);
  EXPECT_EQ(RunBurst(*loop_, load_, 5, Duration::Millis(1)).errors.at("timeout"), 5u);
  // The connections' ends are seen after a while, the requests would be served for seconds yet.
  const std::string idle = "num_requests_running{engine=\"0\",model_name=\"m\"} 0.0";
  const Instant patience = EventLoop::Now() + Duration::Seconds(2);
  bool ended = false;
  while (!ended && EventLoop::Now() < patience) ended = Fetch("/metrics").find(idle) != std::string::npos;
  EXPECT_TRUE(ended);
  load_.tokens = 3;
  load_.timeout = Duration::Seconds(20);
  EXPECT_EQ(RunBurst(*loop_, load_, 5, Duration::Millis(1)).ok, 5u);
}

TEST_F(EmulatedServerTest, ItSaysWhatItServes) {
  const std::string models = Fetch("/v1/models");
  EXPECT_NE(models.find("\"id\":\"m\""), std::string::npos);
  EXPECT_NE(models.find("4096"), std::string::npos);
  EXPECT_EQ(Fetch("/health"), "");
}

}  // namespace
}  // namespace foretoken
