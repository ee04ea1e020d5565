// Gateway: what all connections of one gateway share: its engines, the routing, the counters, the rules. It lives on one thread.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/intrusive/list.hpp>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "integration/gateway/engine.h"
#include "integration/gateway/engine_probe.h"
#include "integration/gateway/gateway_config.h"
#include "integration/gateway/gateway_counters.h"
#include "integration/gateway/http_head.h"
#include "integration/gateway/retry_budget.h"
#include "integration/gateway/routing.h"
#include "integration/gateway/sync_listener.h"
#include "integration/gateway/token_estimator.h"
#include "integration/log/log.h"
#include "runtime/base/result.h"
#include "runtime/cluster/membership.h"

namespace boost::asio::ssl {
class context;
}

namespace foretoken {

// On which of the gateway's addresses a connection came in.
enum class GatewayDoor : uint8_t { kPublic, kMetrics, kAdmin };

// A client connection, as the gateway sweeps over it.
class Swept : public boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
 public:
  virtual ~Swept() = default;
  // Called several times a second: act on what is overdue.
  virtual void Sweep(Instant now) = 0;
  // The gateway ends: finish what is under way, then close; close at once when idle.
  virtual void Drain() = 0;
  virtual void Abort() = 0;
};

class ObservationBuilder;

class Gateway : private SyncListener::Owner {
 public:
  static Result<std::unique_ptr<Gateway>> Make(boost::asio::io_context& io, const GatewayConfig& config);
  ~Gateway() override;

  Instant Now() const {
    return Instant::FromNanos(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - zero_).count() + kClockStart);
  }
  boost::asio::io_context& io() { return io_; }
  const GatewayConfig& config() const { return config_; }
  const HeadOptions& head_options() const { return head_options_; }
  Routing& routing() { return *routing_; }
  TokenEstimator& tokens() { return tokens_; }
  RetryBudget& retry_budget() { return retry_budget_; }
  GatewayCounters& counters() { return counters_; }
  boost::asio::ssl::context* tls() { return tls_.get(); }

  // ---- Engines (gateway_engines.cc).
  Engine& engine(InstanceId id) { return *by_id_[id.value()]; }
  const std::vector<Engine*>& engines() const { return engines_; }
  const Membership& members() const { return members_; }
  const SlowStart& slow_start() const { return routing_->slow_start(); }
  MembershipCounters& membership_counters() { return membership_counters_; }
  const MembershipCounters& membership_counters() const { return membership_counters_; }
  // There already: the one that is, whoever wants it now as well. Error: malformed.
  Result<Membership::Change> AddEngine(const std::string& url, MemberSource source, const std::string& label = "");
  // It takes nothing new, and is gone when the requests under way there have ended; unless another source still wants it.
  Membership::Change RemoveEngine(InstanceId id, MemberSource source);
  // kServing, kCordoned or kDraining. Error: it is leaving.
  Result<Membership::Change> SetEngineState(InstanceId id, InstanceState state);
  // By its number, URL or label. Error: which there are.
  Result<InstanceId> FindEngine(const std::string& text) const;
  bool HasLeft(const std::string& text) const;
  // The workers that a file or a DNS name lists now. Error: the first that is malformed; nothing has changed then.
  Status Follow(const std::vector<std::string>& urls, MemberSource source);
  // What an engine says that it serves.
  void SetModels(Engine& engine, std::vector<std::string> models, int64_t max_model_len);
  void SetAnyModel(Engine& engine);
  // Whether it must be asked what it serves before this connection's first request may go there; if so, it is being asked, and the
  // exchanges that wait for it are told.
  bool MustVerify(Engine& engine, bool fresh_connection);
  // It does not know a model that it is believed to serve.
  void OnUnknownModel(Engine& engine);
  // Another engine that could take a request of this model now.
  bool OtherServes(const Engine& engine, const std::string& model) const;
  // Something was seen of an engine; keeps the candidates in step.
  void OnTrouble(Engine& engine, EngineTrouble trouble, Instant now);
  void OnGoodAnswer(Engine& engine);
  void OnProbeOk(Engine& engine, Instant now);
  // Engines come and go from the candidates as their back-off runs; before every decision.
  void RefreshCandidates(Instant now);
  bool AllAsked() const;  // every engine has said what it serves, or cannot be reached

  struct ModelLookup {
    bool known = false;
    ModelId id;
  };
  ModelLookup FindModel(const std::string& name);
  // What the members serve, in order of their being seen.
  const std::vector<std::string>& model_names() const { return model_names_; }
  bool HasLiveEngine() const;

  // ---- Streams of engines' plugins (gateway_sync.cc).
  Status ListenForSync();
  // Null: none are listened for.
  const SyncListener* sync() const { return sync_.get(); }
  // The engine's own stream tells its progress, or may: then it is told our number of a request.
  bool TellsNumber(InstanceId id) { return sync_ != nullptr && routing_->mirror(id).live() != nullptr; }

  // ---- Connections and requests.
  void Add(Swept& connection) {
    connections_.push_back(connection);
    ++open_connections_;
  }
  // Any time, also while the gateway goes through them.
  void Remove(Swept& connection) {
    if (cursor_ != connections_.end() && &*cursor_ == &connection) ++cursor_;
    connection.unlink();
    --open_connections_;
  }
  size_t open_connections() const { return open_connections_; }
  RequestId NextRequestId() { return RequestId(next_request_++); }
  std::string NewRequestName();
  bool KeyIsValid(std::string_view authorization) const;
  bool draining() const { return draining_; }
  void BeginDrain();
  void AbortAll();

  // A place among max_concurrent_requests: now (true), later (`ready` is called), or none (false and not queued).
  enum class Place : uint8_t { kNow, kLater, kNone };
  using Waiter = std::function<void()>;
  Place TakePlace(const std::shared_ptr<Waiter>& waiter);
  void GivePlace();
  bool ReserveBytes(uint64_t n) {
    if (buffered_ + n > config_.max_buffered_bytes) return false;
    buffered_ += n;
    return true;
  }
  void ReleaseBytes(uint64_t n) { buffered_ -= n; }

  void Sweep();
  // Makes the metrics' text beside the gateway's thread; `ready` is called on it, later. False: too many are being made.
  bool ScrapeMetrics(std::function<void(std::string)> ready);
  // Several times a second at most, for those who watch; nothing where there is no board.
  void Observe();
  // On the log: something of membership that is not about one engine.
  void Tell(LogLevel level, std::string_view kind, const std::string& what) const;

 private:
  Gateway(boost::asio::io_context& io, const GatewayConfig& config);
  bool OnSync(StreamMessage message) override;
  void OnSyncClosed(InstanceId instance) override;
  void OnSyncRefused(const std::string& why) override;
  void SweepSync(Instant now);
  struct Handover {  // from those that a list named to those that it names
    MemberSource source;
    std::vector<InstanceId> leave, join;
    Instant until;
  };
  template <class Visit>
  void ForEachConnection(Visit visit) {
    for (cursor_ = connections_.begin(); cursor_ != connections_.end();) visit(*cursor_++);
  }
  Engine* FindEngine(InstanceId id) { return id.value() < by_id_.size() ? by_id_[id.value()].get() : nullptr; }
  void Apply(const Membership::Change& change);
  void Resolve(Engine& engine);
  void ProbeDue(Instant now);
  void Probe(Engine& engine, Instant now);
  void TryHung(Engine& engine, Instant now);
  void OnModelsAnswer(Engine& engine, const ProbeAnswer& answer, uint64_t suspicions);
  void OnHealthAnswer(Engine& engine, const ProbeAnswer& answer, Instant now);
  void EndVerification(Engine& engine, bool answered);
  void Replace(Engine& engine, std::vector<std::string> models, int64_t max_model_len);
  void RecountModels();
  void HandOver(Instant now);
  void Reclaim();
  void AskLimits(Engine& engine);
  void Tell(LogLevel level, std::string_view kind, const Engine& engine, std::string_view what) const;
  void CheckProgress(Engine& engine, Instant now);

  static constexpr int64_t kClockStart = 1'000'000'000'000;  // far from 0, so that "never" is long ago
  boost::asio::io_context& io_;
  GatewayConfig config_;
  HeadOptions head_options_;
  std::chrono::steady_clock::time_point zero_ = std::chrono::steady_clock::now();
  std::unique_ptr<boost::asio::ssl::context> tls_;
  std::unique_ptr<Routing> routing_;
  TokenEstimator tokens_;
  RetryBudget retry_budget_;
  GatewayCounters counters_;
  boost::asio::ip::tcp::resolver resolver_;
  Membership members_;
  std::vector<Handover> handovers_;
  MembershipCounters membership_counters_;
  std::vector<std::unique_ptr<Engine>> by_id_;        // null: gone
  std::vector<Engine*> engines_;                      // those that are not gone, in order of their ids
  std::unique_ptr<ObservationBuilder> observations_;  // null: nobody watches
  Instant observe_at_;
  std::map<std::string, ModelId, std::less<>> models_;  // every name that there ever was
  std::vector<std::string> model_names_;
  bool any_model_ = false;  // some engine does not say what it serves
  using Connections = boost::intrusive::list<Swept, boost::intrusive::constant_time_size<false>>;
  Connections connections_;
  Connections::iterator cursor_ = connections_.end();  // the one to be looked at next
  size_t open_connections_ = 0;
  // Begins where no gateway before this one can have come to: engines may still hold what that one sent.
  uint64_t next_request_;
  std::unique_ptr<SyncListener> sync_;
  std::vector<StateLevel> levels_told_;  // by engine, on the log
  uint64_t name_seed_;
  size_t running_ = 0;  // places taken
  std::deque<std::weak_ptr<Waiter>> queue_;
  uint64_t buffered_ = 0;
  bool draining_ = false;
  size_t scrapes_ = 0;                       // under way
  boost::asio::thread_pool scrape_pool_{1};  // makes their text
};

}  // namespace foretoken
