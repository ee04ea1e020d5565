// Engine: one engine as the gateway knows it: where it is, whether it may be used, its idle connections and its share of the
// counters. Not its load or speed: those are in the mirror (routing.h).
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/intrusive/list.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "integration/gateway/engine_health.h"
#include "integration/gateway/engine_link.h"
#include "integration/gateway/engine_url.h"
#include "runtime/base/ids.h"
#include "runtime/metrics/latency_histogram.h"
#include "runtime/model/instance.h"

namespace foretoken {

struct EngineCounters {
  uint64_t requests = 0;  // sent to it, retries included
  uint64_t finished = 0;
  uint64_t failed = 0;  // died or answered 5xx
  uint64_t cancelled = 0;
  uint64_t answers_4xx = 0;
  uint64_t connections = 0;                 // dialled, spare ones included
  uint64_t spare_connections = 0;           // dialled ahead of the request that will need one
  uint64_t stale_connections = 0;           // pooled ones that turned out to be closed
  uint64_t output_tokens = 0;               // as it reports them
  LatencyHistogram ttft, inter_token, e2e;  // of requests there, from their being sent
};

// Something that waits on an engine; the engine's list of them.
struct EngineUse : boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {};

class Engine final : public EngineLink::Pool, private EngineLink::User {
 public:
  Engine(boost::asio::io_context& io, EngineUrl url, InstanceId id, EngineHealth::Options health)
      : url(std::move(url)), id(id), health(health), io_(io) {}
  ~Engine() override { CloseIdle(); }

  EngineUrl url;
  std::string label;  // what people call it; may be empty
  InstanceId id;
  EngineHealth health;
  EngineCounters counters;
  std::vector<boost::asio::ip::tcp::endpoint> endpoints;  // of host and port; never empty once resolved
  std::vector<std::string> models;                        // as /v1/models lists them
  int64_t max_model_len = 0;                              // 0: not stated
  bool models_known = false;
  bool any_model = false;                         // it has no /v1/models: it is asked for whatever is asked for
  InstanceState state = InstanceState::kServing;  // as membership has it: kServing, kCordoned or kDraining
  bool leaving = false;                           // it is gone when it is empty
  bool asked = false;                             // a probe of it has ended
  Instant last_byte;                              // when anything came from it last
  Instant next_probe;
  bool probing = false;
  bool resolving = false;
  // Behind an address there may be another engine by now. Nobody has been there in between while a connection has stood since it last said what
  // it serves; otherwise it is asked before it is sent anything.
  Instant verified_at;
  bool suspect = false;
  uint64_t suspicions = 0;
  void Suspect() {
    suspect = true;
    ++suspicions;
    next_probe = Instant();
  }
  bool ask_health = false;  // the present or latest probe's question
  uint64_t restarts = 0;    // times that it came to be there
  std::string model_asked;  // by the latest request, where it does not say what it serves
  boost::intrusive::list<EngineUse, boost::intrusive::constant_time_size<false>> uses;  // requests that wait on it

  // An idle connection, or a new one that is not connected yet. Who takes the last has the next one dialled: requests that come
  // together wait for their connections once, not each.
  std::shared_ptr<EngineLink> Take(bool fresh, Instant now) {
    std::shared_ptr<EngineLink> link;
    if (!fresh && !idle_.empty()) {
      link = std::move(idle_.back());
      idle_.pop_back();
    } else {
      ++counters.connections;
      link = std::make_shared<EngineLink>(io_, *this);
    }
    if (!fresh && !suspect && idle_.empty() && spare_ == nullptr) DialSpare(now);
    return link;
  }
  void Give(std::shared_ptr<EngineLink> link, Instant now) {
    link->Detach(now);
    if (leaving) return link->Close();
    idle_.push_back(std::move(link));
  }
  void CloseIdleBefore(Instant limit) {
    size_t n = 0;
    while (n < idle_.size() && idle_[n]->idle_since() < limit) idle_[n++]->Close();
    idle_.erase(idle_.begin(), idle_.begin() + static_cast<std::ptrdiff_t>(n));
  }
  void CloseIdle() {
    for (const auto& link : idle_) {
      link->Orphan();
      link->Close();
    }
    idle_.clear();
    if (spare_ != nullptr) std::exchange(spare_, nullptr)->Close();
  }
  size_t idle() const { return idle_.size(); }

  void OnIdleClosed(EngineLink& link) override {
    std::erase_if(idle_, [&](const std::shared_ptr<EngineLink>& l) { return l.get() == &link; });
    Suspect();  // or it was only tired of an idle connection
  }

 private:
  void DialSpare(Instant now) {
    ++counters.connections;
    ++counters.spare_connections;
    spare_ = std::make_shared<EngineLink>(io_, *this);
    spare_since_ = now;
    spare_->Connect(endpoints.front(), *this);
  }
  void OnLinkOpen() override { Give(std::exchange(spare_, nullptr), spare_since_); }
  void OnLinkBytes() override {}                                           // a link without a request has no user who is told
  void OnLinkClosed(const EngineLink::Code&) override { spare_.reset(); }  // whoever needs one finds out for himself

  boost::asio::io_context& io_;
  std::vector<std::shared_ptr<EngineLink>> idle_;  // the one used last is at the back
  std::shared_ptr<EngineLink> spare_;              // being dialled
  Instant spare_since_;
};

}  // namespace foretoken
