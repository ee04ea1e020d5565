// NODEs in one process, each in an actor system of its own, over real sockets on loopback: connecting, TLS, predicting, hostile peers.
#include "integration/transport/node.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "integration/bench/loaded_simulator.h"
#include "integration/bench/throwaway_certificates.h"
#include "integration/transport/control_client.h"
#include "runtime/perf/step_time_law.h"
#include "tests/testing/random_messages.h"

namespace foretoken {
namespace {

constexpr uint32_t kInstances = 2;  // all on the second node

StepTimeModel Model() {
  StepTimeModel m;
  m.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{5.85e6, 19.5e3, 13.8e3, 42});
  return m;
}

const std::vector<SyncScript>& Scripts() {
  static const std::vector<SyncScript> scripts = std::move(RecordScripts(Model(), {})).value();
  return scripts;
}

std::vector<uint16_t> FreePorts(size_t n) {
  std::vector<int> sockets;
  std::vector<uint16_t> ports;
  for (size_t k = 0; k < n; ++k) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof a;
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&a), length), 0);
    getsockname(fd, reinterpret_cast<sockaddr*>(&a), &length);
    sockets.push_back(fd);
    ports.push_back(ntohs(a.sin_port));
  }
  for (const int fd : sockets) close(fd);
  return ports;
}

int Connect(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(port);
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const timeval limit{2, 0};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0) return fd;
  close(fd);
  return -1;
}

struct Config : caf::actor_system_config {
  Config() {
    load<caf::io::middleman>();
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", 1);
    set("middleman.workers", 0);
    set("logger.console", caf::atom("none"));
  }
};

// An INSTANCE that does what the test says: it keeps what it is told, and answers when it is told to.
struct Script {
  std::mutex mutex;
  std::vector<RequestId> dispatched, cancelled;
  caf::actor node;  // who dispatched
};
struct SayCall {
  RequestOutcome outcome;
};

caf::behavior ScriptedInstance(caf::event_based_actor* self, const std::shared_ptr<Script>& script) {
  return {[self, script](const DispatchCall& call) {
            const std::lock_guard lock(script->mutex);
            script->dispatched.push_back(call.request->id);
            script->node = caf::actor_cast<caf::actor>(self->current_sender());
          },
          [script](const Cancel& cancel) {
            const std::lock_guard lock(script->mutex);
            script->cancelled.push_back(cancel.request);
          },
          [self, script](const SayCall& call) {
            const std::lock_guard lock(script->mutex);
            self->send(script->node, call.outcome);
            script->node = {};
          },
          [](const ResyncRequest&) {}};
}

}  // namespace
}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::SayCall)

namespace foretoken {
namespace {

// One node of two, "router" and "gpu", which has the INSTANCEs and SIMULATORs; or of three.
class Node {
 public:
  Node(uint32_t self, const std::vector<uint16_t>& ports, std::shared_ptr<const TlsContext> tls = nullptr)
      : clock_(system_, 1) {
    NodeOptions o;
    o.links.nodes = {{"router", {"127.0.0.1", ports[0]}}, {"gpu", {"127.0.0.1", ports[1]}}};
    if (ports.size() > 2) o.links.nodes.push_back({"other", {"127.0.0.1", ports[2]}});
    o.links.self = NodeId(self);
    o.links.tls = std::move(tls);
    o.links.heartbeat = Duration::Millis(20);
    o.links.dead_after = Duration::Millis(400);
    o.links.log = [](const std::string&) {};
    o.places.assign(kInstances, {NodeId(1), NodeId(1), 1});
    o.instances.resize(kInstances);
    o.streams = false;
    for (uint32_t k = 0; k < kInstances; ++k) streams_.emplace_back(InstanceId(k), &Scripts()[k]);
    o.make_simulator = [this](InstanceId k, InstanceId) {
      return MakeLoadedSimulator(k, Model(), {}, Scripts()[k.value()], streams_[k.value()], clock_.Now());
    };
    if (self == 1)
      for (caf::actor& i : o.instances) {
        scripts.push_back(std::make_shared<Script>());
        i = system_.spawn(ScriptedInstance, scripts.back());
      }
    engines_ = o.instances;
    node_ = std::move(SpawnNode(system_, clock_, std::move(o))).value();
  }
  ~Node() {
    engines_.push_back(node_);
    engines_.insert(engines_.end(), schedulers_.begin(), schedulers_.end());
    schedulers_.clear();
    caf::scoped_actor self(system_);
    for (const caf::actor& a : engines_) {
      if (!a) continue;
      caf::anon_send_exit(a, caf::exit_reason::user_shutdown);
      self->wait_for(a);  // the system does not wait for brokers
    }
    node_ = {};
    engines_.clear();
  }

  NodeStatus Query() {
    NodeStatus out;
    caf::scoped_actor self(system_);
    self->request(node_, std::chrono::seconds(10), NodeQuery{})
        .receive([&out](const NodeStatus& s) { out = s; },
                 [](const caf::error&) { ADD_FAILURE() << "the node does not answer"; });
    return out;
  }
  bool Connected(std::chrono::milliseconds within = std::chrono::seconds(10)) {
    const auto until = std::chrono::steady_clock::now() + within;
    while (std::chrono::steady_clock::now() < until) {
      if (Query().peers.front().connected) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  // The instances that answer a question, and those that are said to be unreachable.
  std::pair<std::vector<uint32_t>, std::vector<uint32_t>> Predict() {
    std::pair<std::vector<uint32_t>, std::vector<uint32_t>> out;
    caf::scoped_actor self(system_);
    Prng prng(1);
    PredictCall call{
        DecisionId(77), std::make_shared<RequestMeta>(DrawRequest(prng, RequestId(1), clock_.Now())), {}, {}, clock_.Now()};
    call.query.request = call.request.get();
    for (uint32_t k = 0; k < kInstances; ++k) call.targets.push_back(InstanceId(k));
    self->send(node_, call);
    while (out.first.size() + out.second.size() < kInstances) {
      bool got = false;
      self->receive(
          [&](const PredictedReply& r) {
            got = true;
            EXPECT_EQ(r.decision, DecisionId(77));
            for (const Prediction& p : r.predictions) out.first.push_back(p.instance.value());
            for (const InstanceId i : r.unreachable) out.second.push_back(i.value());
          },
          caf::after(std::chrono::seconds(10)) >> [] {});
      if (!got) break;
    }
    return out;
  }

  // What comes of the request, sent in the name of a SCHEDULER here.
  std::future<RequestOutcome> Dispatch(RequestId request, InstanceId instance) {
    auto promise = std::make_shared<std::promise<RequestOutcome>>();
    auto outcome = promise->get_future();
    Prng prng(1);
    const DispatchCall call{
        DecisionId(1), instance, std::make_shared<RequestMeta>(DrawRequest(prng, request, clock_.Now())), {}};
    schedulers_.push_back(system_.spawn(
        [node = node_, call, promise](caf::event_based_actor* self, int) -> caf::behavior {
          self->send(node, call);
          return {[promise, self](const RequestOutcome& o) {
            promise->set_value(o);
            self->quit();
          }};
        },
        0));
    return outcome;
  }
  void Say(InstanceId instance, const RequestOutcome& outcome) { caf::anon_send(engines_[instance.value()], SayCall{outcome}); }

  std::vector<std::shared_ptr<Script>> scripts;  // by instance, where they are

 private:
  Config config_;
  caf::actor_system system_{config_};
  HostClock clock_;
  std::vector<caf::actor> schedulers_;
  std::vector<SyncStream> streams_;
  std::vector<caf::actor> engines_;
  caf::actor node_;
};

const std::vector<uint32_t> kBoth = {0, 1};

class Certificates {
 public:
  explicit Certificates(const std::vector<std::string>& names) {
    std::string made = std::filesystem::temp_directory_path() / ("foretoken-node-test-" + std::string(6, 'X'));
    EXPECT_NE(mkdtemp(made.data()), nullptr);
    folder_ = made;
    const Status written = WriteThrowawayCertificates(folder_, names);
    EXPECT_TRUE(written.ok());
  }
  ~Certificates() { std::filesystem::remove_all(folder_); }
  std::shared_ptr<const TlsContext> Of(const std::string& name) const {
    auto made = TlsContext::Load({folder_ + "/" + name + ".pem", folder_ + "/" + name + ".key", folder_ + "/ca.pem"});
    EXPECT_TRUE(made.ok()) << made.error().message;
    return std::move(made).value();
  }
  const std::string& folder() const { return folder_; }

 private:
  std::string folder_;
};

TEST(NodeTest, APredictionTakesOneFrameEachWayPerNode) {
  const auto ports = FreePorts(2);
  Node router(0, ports), gpu(1, ports);
  ASSERT_TRUE(router.Connected());
  const auto [answered, unreachable] = router.Predict();
  EXPECT_EQ(answered, kBoth);
  EXPECT_TRUE(unreachable.empty());
  EXPECT_EQ(router.Query().counters.predict_frames, 1u);
}

TEST(NodeTest, WhatAMissingNodeHostsIsUnreachableAtOnce) {
  const auto ports = FreePorts(2);
  Node router(0, ports);
  EXPECT_EQ(router.Predict().second, kBoth);
  auto gpu = std::make_unique<Node>(1, ports);
  ASSERT_TRUE(router.Connected());
  EXPECT_EQ(router.Predict().first, kBoth);
  gpu.reset();
  for (int k = 0; k < 500 && router.Query().peers.front().connected; ++k)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(router.Predict().second, kBoth);
  gpu = std::make_unique<Node>(1, ports);  // the same address again
  ASSERT_TRUE(router.Connected());
  EXPECT_EQ(router.Predict().first, kBoth);
}

TEST(NodeTest, UnderTlsOnlyCertificatesOfTheAuthorityWithTheRightNameConnect) {
  const Certificates ours({"router", "gpu", "other"}), theirs({"router", "gpu"});
  const auto ports = FreePorts(2);
  Node router(0, ports, ours.Of("router"));
  {
    Node stranger(1, ports, theirs.Of("gpu"));
    EXPECT_FALSE(router.Connected(std::chrono::milliseconds(600))) << "another authority's certificate";
  }
  {
    Node impostor(1, ports, ours.Of("other"));
    EXPECT_FALSE(router.Connected(std::chrono::milliseconds(600))) << "another node's certificate";
  }
  {
    Node plain(1, ports);
    EXPECT_FALSE(router.Connected(std::chrono::milliseconds(600))) << "no TLS at all";
  }
  Node gpu(1, ports, ours.Of("gpu"));
  ASSERT_TRUE(router.Connected());
  EXPECT_EQ(router.Predict().first, kBoth);
}

TEST(NodeTest, ADiallerRefusesAListenerWithAnotherNodesName) {
  const Certificates ours({"router", "gpu", "other"});
  const auto ports = FreePorts(2);
  Node impostor(0, ports, ours.Of("other"));
  Node gpu(1, ports, ours.Of("gpu"));
  EXPECT_FALSE(gpu.Connected(std::chrono::milliseconds(800)));
}

TEST(NodeTest, ABrokenCertificateIsAnErrorThatNamesTheFile) {
  const Certificates ours({"router", "gpu"});
  const auto mixed = TlsContext::Load({ours.folder() + "/router.pem", ours.folder() + "/gpu.key", ours.folder() + "/ca.pem"});
  ASSERT_FALSE(mixed.ok());
  EXPECT_NE(mixed.error().message.find("gpu.key"), std::string::npos) << mixed.error().message;
  EXPECT_FALSE(TlsContext::Load({"/nonexistent.pem", ours.folder() + "/gpu.key", ours.folder() + "/ca.pem"}).ok());
}

TEST(NodeTest, ACommandIsAnsweredAndANodeWithoutControlSaysSo) {
  const auto ports = FreePorts(2);
  Node router(0, ports);
  const auto reply = AskNode({{"127.0.0.1", ports[0]}, "router", nullptr, 5}, {9, "status", {}});
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  EXPECT_EQ(*reply, (ControlReply{9, false, "this node takes no commands"}));
  EXPECT_FALSE(AskNode({{"127.0.0.1", ports[1]}, "gpu", nullptr, 5}, {9, "status", {}}).ok());
}

bool Until(const std::function<bool()>& condition) {
  for (int k = 0; k < 2000 && !condition(); ++k) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return condition();
}

TEST(NodeTest, ARequestSentAnewByAnotherSchedulerIsNotEndedByTheEndOfItsFirstTry) {
  const auto ports = FreePorts(3);
  auto router = std::make_unique<Node>(0, ports);
  Node gpu(1, ports), other(2, ports);
  const RequestId request(42);
  const InstanceId first(0), second(1);
  const auto has = [&gpu, request](InstanceId i, std::vector<RequestId> Script::*list) {
    Script& s = *gpu.scripts[i.value()];
    const std::lock_guard lock(s.mutex);
    return std::count((s.*list).begin(), (s.*list).end(), request) > 0;
  };
  const auto connected = [](Node& n) {
    const auto peers = n.Query().peers;
    return std::all_of(peers.begin(), peers.end(), [](auto& p) { return p.connected; });
  };
  ASSERT_TRUE(Until([&] { return connected(*router) && connected(gpu) && connected(other); }));
  const auto lost = router->Dispatch(request, first);
  ASSERT_TRUE(Until([&] { return has(first, &Script::dispatched); }));
  router.reset();
  ASSERT_TRUE(Until([&] { return has(first, &Script::cancelled); }));

  auto same = other.Dispatch(request, first);  // where its first try has not ended yet: elsewhere, please
  ASSERT_EQ(same.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_EQ(same.get().kind, OutcomeKind::kFailed);

  auto again = other.Dispatch(request, second);
  ASSERT_TRUE(Until([&] { return has(second, &Script::dispatched); }));
  gpu.Say(first, {request, first, OutcomeKind::kCancelled, OutcomeReason::kClientGone, {}, {}});
  gpu.Query();  // the node has taken it
  gpu.Say(second, {request, second, OutcomeKind::kFinished, OutcomeReason::kStop, TokenCount(7), {}});
  ASSERT_EQ(again.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  const RequestOutcome outcome = again.get();
  EXPECT_EQ(outcome.kind, OutcomeKind::kFinished);
  EXPECT_EQ(outcome.instance, second);
  EXPECT_EQ(gpu.Query().held_for_others, 0u);
}

size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * 4096;
}

// AddressSanitizer holds on to what is freed.
#ifdef __SANITIZE_ADDRESS__
constexpr size_t kMoreMemoryMax = 512u << 20;
#else
constexpr size_t kMoreMemoryMax = 64u << 20;
#endif

// What a hostile peer sends on one connection: noise, forged lengths, and mutated or truncated frames behind a true hello.
std::vector<std::byte> Attack(Prng& prng) {
  std::vector<std::byte> out;
  const auto add = [&out](const Frame& f) { out.insert(out.end(), f.begin(), f.end()); };
  const uint64_t kind = prng.Below(5);
  if (kind >= 2) {
    NodeHello hello;
    hello.protocol_version = kNodeProtocolVersion;
    hello.node = kind == 4 ? "nobody" : "gpu";
    for (uint32_t k = 0; k < kInstances; ++k) hello.hosted.push_back({InstanceId(k), 1, prng.Below(5)});
    add(std::move(Encode(Message(hello))).value());
  }
  if (kind == 0) {
    for (uint64_t k = prng.Below(400); k > 0; --k) out.push_back(static_cast<std::byte>(prng.Next()));
  } else if (kind == 1) {
    const uint32_t head[4] = {static_cast<uint32_t>(prng.Below(3)), static_cast<uint32_t>(prng.Next()), 1, 1};
    const auto* bytes = reinterpret_cast<const std::byte*>(head);
    out.insert(out.end(), bytes, bytes + sizeof head);
  } else {
    for (uint64_t k = 1 + prng.Below(6); k > 0; --k) {
      Frame f = std::move(Encode(testing::RandomMessage(prng.Below(testing::kMessageKinds), prng))).value();
      for (uint64_t m = prng.Below(4); m > 0; --m) f[prng.Below(f.size())] = static_cast<std::byte>(prng.Next());
      if (prng.Below(8) == 0) f.resize(1 + prng.Below(f.size()));
      add(f);
    }
  }
  return out;
}

// Sends hostile connections until `bytes` have gone out; how many connections that were.
size_t Besiege(uint16_t port, uint64_t seed, size_t bytes) {
  Prng prng(seed);
  size_t connections = 0;
  for (size_t sent = 0; sent < bytes; ++connections) {
    const int fd = Connect(port);
    if (fd < 0) continue;
    const std::vector<std::byte> attack = Attack(prng);
    if (send(fd, attack.data(), attack.size(), MSG_NOSIGNAL) > 0) sent += attack.size();
    if (prng.Below(4) == 0) {  // reads what comes until it is thrown out
      char buffer[4096];
      const timeval limit{0, 20'000};
      setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
      while (recv(fd, buffer, sizeof buffer, 0) > 0) {}
    }
    close(fd);
  }
  return connections;
}

TEST(NodeTest, AMillionHostileBytesAtAPlainPortChangeNothing) {
  const uint64_t seed = 20261125;
  SCOPED_TRACE("seed " + std::to_string(seed));
  const auto ports = FreePorts(2);
  Node router(0, ports);
  const size_t before = ResidentBytes();
  EXPECT_GT(Besiege(ports[0], seed, 1'000'000), 500u);
  EXPECT_LT(ResidentBytes(), before + kMoreMemoryMax);
  EXPECT_GT(router.Query().links.malformed, 100u);
  Node gpu(1, ports);  // the true one
  ASSERT_TRUE(router.Connected());
  EXPECT_EQ(router.Predict().first, kBoth);
}

TEST(NodeTest, AMillionHostileBytesAtATlsPortChangeNothing) {
  const uint64_t seed = 20261126;
  SCOPED_TRACE("seed " + std::to_string(seed));
  const Certificates ours({"router", "gpu"});
  const auto ports = FreePorts(2);
  Node router(0, ports, ours.Of("router"));
  Node gpu(1, ports, ours.Of("gpu"));
  ASSERT_TRUE(router.Connected());
  const size_t before = ResidentBytes();
  Besiege(ports[0], seed, 1'000'000);
  EXPECT_LT(ResidentBytes(), before + kMoreMemoryMax);
  ASSERT_TRUE(router.Connected());
  EXPECT_EQ(router.Predict().first, kBoth);
}

}  // namespace
}  // namespace foretoken
