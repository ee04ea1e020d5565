#include "integration/gateway/gateway.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <cstdio>
#include <utility>

#include "integration/gateway/exchange.h"
#include "integration/gateway/gateway_metrics.h"
#include "integration/http/background_thread.h"
#include "integration/observe/observation_builder.h"
#include "runtime/base/prng.h"

namespace foretoken {
namespace {

constexpr size_t kMostScrapes = 16;  // at once: each holds a copy of all counters

std::unique_ptr<boost::asio::ssl::context> MakeTls(const GatewayConfig& c, boost::system::error_code& code) {
  auto tls = std::make_unique<boost::asio::ssl::context>(boost::asio::ssl::context::tls_server);
  tls->set_options(boost::asio::ssl::context::no_tlsv1 | boost::asio::ssl::context::no_tlsv1_1, code);
  if (!code) tls->use_certificate_chain_file(c.tls_cert, code);
  if (!code) tls->use_private_key_file(c.tls_key, boost::asio::ssl::context::pem, code);
  return tls;
}

bool SameText(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;  // takes as long whichever byte differs
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  return difference == 0;
}

}  // namespace

Gateway::Gateway(boost::asio::io_context& io, const GatewayConfig& config)
    : io_(io),
      config_(config),
      resolver_(io),
      next_request_(static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                              std::chrono::system_clock::now().time_since_epoch())
                                              .count())
                    << 12),
      name_seed_(Mix64(static_cast<uint64_t>(zero_.time_since_epoch().count()), config.seed)) {
  head_options_.most_bytes = config.max_header_bytes;
  head_options_.request_id_fields = config.request_id_headers;
}

Gateway::~Gateway() { scrape_pool_.join(); }

Result<std::unique_ptr<Gateway>> Gateway::Make(boost::asio::io_context& io, const GatewayConfig& config) {
  std::unique_ptr<Gateway> gateway(new Gateway(io, config));
  Routing::Options options;
  options.policy = config.policy;
  options.shadow = config.shadow;
  options.slo = {config.slo_ttft, config.slo_tpot};
  options.seed = config.seed;
  options.shed_above = config.shed_above;
  options.journal = config.board != nullptr;
  auto routing = Routing::Make(options);
  if (!routing.ok()) return routing.error();
  gateway->routing_ = std::move(routing).value();
  if (config.tls_cert.empty() != config.tls_key.empty()) return Error{"TLS needs both a certificate and a key"};
  if (!config.tls_cert.empty()) {
    boost::system::error_code code;
    gateway->tls_ = MakeTls(config, code);
    if (code) return Error{"TLS: " + code.message() + " (" + config.tls_cert + ", " + config.tls_key + ")"};
  }
  if (config.board != nullptr) {
    const SystemFacts facts{"gateway", config.host, config.policy, "timeline", "inferred", options.slo, false};
    gateway->observations_ = std::make_unique<ObservationBuilder>(ObservationBuilder::Options{facts});
  }
  for (size_t i = 0; i < config.worker_urls.size(); ++i) {
    auto added = gateway->AddEngine(config.worker_urls[i], MemberSource::kCommand,
                                    i < config.worker_labels.size() ? config.worker_labels[i] : "");
    if (!added.ok()) return added.error();
    if (!added->fresh) return Error{"worker " + config.worker_urls[i] + " is named twice"};
    Engine& e = gateway->engine(added->id);
    if (!e.endpoints.empty()) continue;
    boost::system::error_code code;
    for (const auto& entry : gateway->resolver_.resolve(e.url.host, e.url.port, code)) e.endpoints.push_back(entry.endpoint());
    if (code || e.endpoints.empty())
      return Error{"worker " + e.url.name() + ": " + e.url.host + " cannot be resolved: " + code.message()};
  }
  if (const Status listens = gateway->ListenForSync(); !listens.ok()) return listens.error();
  return gateway;
}

void Gateway::Tell(LogLevel level, std::string_view kind, const Engine& engine, std::string_view what) const {
  if (config_.log) config_.log->Write(level, kind, engine.url.name() + std::string(what), {{"engine", engine.url.name()}});
}

void Gateway::Tell(LogLevel level, std::string_view kind, const std::string& what) const {
  if (config_.log) config_.log->Write(level, kind, what);
}

std::string Gateway::NewRequestName() {
  char name[24];
  std::snprintf(name, sizeof name, "ft-%016llx", static_cast<unsigned long long>(Mix64(name_seed_++)));
  return name;
}

bool Gateway::KeyIsValid(std::string_view authorization) const {
  if (config_.api_keys.empty()) return true;
  if (authorization.substr(0, 7) != "Bearer ") return false;
  const std::string_view key = authorization.substr(7);
  return std::any_of(config_.api_keys.begin(), config_.api_keys.end(), [&](const std::string& k) { return SameText(k, key); });
}

void Gateway::BeginDrain() {
  draining_ = true;
  ForEachConnection([](Swept& c) { c.Drain(); });
}

void Gateway::AbortAll() {
  while (!connections_.empty()) connections_.front().Abort();
  for (Engine* e : engines_) e->CloseIdle();
}

Gateway::Place Gateway::TakePlace(const std::shared_ptr<Waiter>& waiter) {
  if (config_.max_concurrent_requests == 0) return Place::kNow;
  if (running_ < config_.max_concurrent_requests) {
    ++running_;
    return Place::kNow;
  }
  std::erase_if(queue_, [](const std::weak_ptr<Waiter>& w) { return w.expired(); });
  if (queue_.size() >= config_.queue_size) return Place::kNone;
  queue_.push_back(waiter);
  return Place::kLater;
}

void Gateway::GivePlace() {
  if (config_.max_concurrent_requests == 0) return;
  --running_;
  while (!queue_.empty()) {
    const std::shared_ptr<Waiter> next = queue_.front().lock();
    queue_.pop_front();
    if (next == nullptr) continue;
    ++running_;
    return (*next)();
  }
}

void Gateway::Sweep() {
  const Instant now = Now();
  ForEachConnection([now](Swept& c) { c.Sweep(now); });
  for (Engine* e : engines_) {
    e->CloseIdleBefore(now - config_.pool_idle);
    CheckProgress(*e, now);
  }
  if (sync_ != nullptr) SweepSync(now);
  ProbeDue(now);
  HandOver(Now());
  Reclaim();
  if (observations_ != nullptr && now >= observe_at_) Observe();
}

// Out when some request there has heard nothing for as long as it should never have to wait, and nothing else came from it either.
void Gateway::CheckProgress(Engine& engine, Instant now) {
  Duration bound = config_.dead_after;
  bool streams = false;
  for (const EngineUse& use : engine.uses) {
    const auto& x = static_cast<const Exchange&>(use);
    streams |= x.streaming();
    // An answer in one piece says nothing of progress while a stream beside it does.
    if (x.streaming()) bound = std::max(bound, x.QuietBound(now));
  }
  bool hung = false;
  for (const EngineUse& use : engine.uses) {
    const auto& x = static_cast<const Exchange&>(use);
    if (streams && !x.streaming()) continue;
    const Duration silent = now - std::max(engine.last_byte, x.sent_at());
    hung |= silent > (streams ? bound : std::max(config_.dead_after, x.QuietBound(now)));
  }
  if (!hung) return;
  if (engine.health.trouble() != EngineTrouble::kHung) OnTrouble(engine, EngineTrouble::kHung, now);
  // A request that goes elsewhere leaves the list, and may end others there: look anew after each.
  std::vector<Exchange*> waiting;
  for (EngineUse& use : engine.uses) {
    auto& x = static_cast<Exchange&>(use);
    if (x.waits_for_first() && now - x.sent_at() > config_.dead_after) waiting.push_back(&x);
  }
  for (Exchange* x : waiting) x->OnEngineHung();
}

bool Gateway::ScrapeMetrics(std::function<void(std::string)> ready) {
  if (scrapes_ >= kMostScrapes) return false;
  ++scrapes_;
  boost::asio::post(scrape_pool_, [this, report = ReportOf(*this), ready = std::move(ready)]() mutable {
    BecomeBackground();
    boost::asio::post(io_, [this, text = MetricsText(report), ready = std::move(ready)]() mutable {
      --scrapes_;
      ready(std::move(text));
    });
  });
  return true;
}

}  // namespace foretoken
