#include "integration/gateway/gateway.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <cstdio>
#include <utility>

#include "integration/engines/openai/engine_facts.h"
#include "integration/gateway/engine_probe.h"
#include "integration/gateway/exchange.h"
#include "integration/gateway/gateway_metrics.h"
#include "integration/observe/observation_builder.h"
#include "runtime/base/prng.h"

namespace foretoken {
namespace {

constexpr size_t kMostScrapes = 16;  // at once: each holds a copy of all counters
constexpr size_t kMostModels = 4096;
constexpr int64_t kServingProbes = 5;  // a serving engine is probed so many times less often than one that is out

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
    : io_(io), config_(config), name_seed_(Mix64(static_cast<uint64_t>(zero_.time_since_epoch().count()), config.seed)) {
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
  for (const std::string& url : config.worker_urls) {
    auto added = gateway->AddEngine(url);
    if (!added.ok()) return added.error();
  }
  return gateway;
}

Result<InstanceId> Gateway::AddEngine(const std::string& text) {
  auto url = EngineUrl::Parse(text);
  if (!url.ok()) return url.error();
  for (const auto& e : engines_) {
    if (e->url.name() != url->name()) continue;
    if (!e->removed) return Error{"worker " + e->url.name() + " is there already"};
    e->removed = false;
    e->next_probe = Instant();
    return e->id;
  }
  boost::system::error_code code;
  boost::asio::ip::tcp::resolver resolver(io_);
  const auto found = resolver.resolve(url->host, url->port, code);
  if (code || found.empty())
    return Error{"worker " + url->name() + ": " + url->host + " cannot be resolved: " + code.message()};
  const InstanceId id = routing_->AddEngine(url->name());
  EngineHealth::Options health;
  auto engine = std::make_unique<Engine>(io_, std::move(url).value(), id, health);
  for (const auto& entry : found) engine->endpoints.push_back(entry.endpoint());
  engine->health.OnTrouble(EngineTrouble::kUnreachable, Now());  // until it answers
  engines_.push_back(std::move(engine));
  routing_->SetUsable(id, false);
  return id;
}

bool Gateway::RemoveEngine(const std::string& url) {
  for (const auto& e : engines_) {
    if (e->url.name() != url || e->removed) continue;
    e->removed = true;
    e->CloseIdle();
    routing_->SetUsable(e->id, false);
    return true;
  }
  return false;
}

Gateway::ModelLookup Gateway::FindModel(const std::string& name) {
  const auto at = models_.find(name);
  if (at != models_.end()) return {true, at->second};
  // Engines that do not say what they serve are asked for anything; so is a gateway that no engine has answered yet.
  const bool anything =
      std::any_of(engines_.begin(), engines_.end(), [](const auto& e) { return e->any_model && !e->removed; });
  if ((!anything && !model_names_.empty()) || model_names_.size() >= kMostModels) return {};
  const ModelId id(static_cast<uint32_t>(models_.size()));
  if (!anything) return {true, ModelId(kMostModels)};  // nobody serves it as far as is known: 503, not 404
  models_.emplace(name, id);
  for (const auto& e : engines_)
    if (e->any_model) SetAnyModel(*e);
  return {true, id};
}

void Gateway::SetModels(Engine& engine, std::vector<std::string> models, int64_t max_model_len) {
  engine.models_known = true;
  engine.any_model = models.empty();
  engine.max_model_len = max_model_len;
  if (engine.any_model) return SetAnyModel(engine);
  if (engine.models == models) return;
  std::vector<ModelId> ids;
  for (const std::string& name : models) {
    if (models_.size() >= kMostModels) break;
    const auto [at, fresh] = models_.emplace(name, ModelId(static_cast<uint32_t>(models_.size())));
    if (std::find(model_names_.begin(), model_names_.end(), name) == model_names_.end()) model_names_.push_back(name);
    ids.push_back(at->second);
  }
  engine.models = std::move(models);
  routing_->SetModels(engine.id, std::move(ids));
}

void Gateway::SetAnyModel(Engine& engine) {
  engine.any_model = engine.models_known = true;
  std::vector<ModelId> ids;
  for (const auto& [name, id] : models_) ids.push_back(id);
  routing_->SetModels(engine.id, std::move(ids));
}

void Gateway::Tell(LogLevel level, std::string_view kind, const Engine& engine, std::string_view what) const {
  if (config_.log) config_.log->Write(level, kind, engine.url.name() + std::string(what), {{"engine", engine.url.name()}});
}

void Gateway::OnTrouble(Engine& engine, EngineTrouble trouble, Instant now) {
  if (!engine.health.OnTrouble(trouble, now)) return;
  engine.CloseIdle();
  engine.next_probe = now;
  Tell(LogLevel::kWarning, "engine_out", engine, " is out: " + std::string(TroubleName(trouble)));
}

void Gateway::OnGoodAnswer(Engine& engine) {
  if (engine.health.OnGoodAnswer()) Tell(LogLevel::kInfo, "engine_back", engine, " is back");
}

void Gateway::OnProbeOk(Engine& engine, Instant now) {
  if (!engine.health.OnProbeOk(now)) return;
  Tell(LogLevel::kInfo, "engine_back", engine, " is back");
  routing_->OnRestart(engine.id, now);  // unreachable or crashed: another start of it, which holds nothing
  AskLimits(engine);
}

// How large its KV cache is, where it says so.
void Gateway::AskLimits(Engine& engine) {
  Engine* e = &engine;
  EngineProbe::Run(io_, engine, "/metrics", config_.dead_after, [this, e](const ProbeAnswer& a) {
    if (a.status != 200) return;
    const EngineMetrics m = ReadMetrics(a.body);
    routing_->mirror(e->id).SetLimits(e->max_model_len, m.kv_blocks.value_or(0), m.block_tokens.value_or(0), Now());
  });
}

void Gateway::RefreshCandidates(Instant now) {
  for (const auto& e : engines_) routing_->SetUsable(e->id, !e->removed && e->models_known && e->health.Usable(now));
}

bool Gateway::AllAsked() const {
  return std::all_of(engines_.begin(), engines_.end(), [](const auto& e) { return e->models_known || e->asked; });
}

bool Gateway::HasLiveEngine() const {
  return std::any_of(engines_.begin(), engines_.end(), [](const auto& e) { return !e->removed && e->health.serving(); });
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
  for (const auto& e : engines_) e->CloseIdle();
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
  for (const auto& e : engines_) {
    e->CloseIdleBefore(now - config_.pool_idle);
    CheckProgress(*e, now);
  }
  ProbeDue(now);
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

void Gateway::ProbeDue(Instant now) {
  for (const auto& owned : engines_) {
    Engine* e = owned.get();
    if (e->removed || e->probing || now < e->next_probe) continue;
    e->probing = true;
    e->next_probe = now + config_.probe_every * (e->health.serving() ? kServingProbes : 1);
    const bool ask_models = !e->models_known || !e->health.serving();
    EngineProbe::Run(
        io_, *e, ask_models ? "/v1/models" : "/health", config_.dead_after, [this, e, ask_models](const ProbeAnswer& a) {
          e->probing = false;
          e->asked = true;
          const Instant at = Now();
          if (a.status == 0) return OnTrouble(*e, a.reached ? EngineTrouble::kHung : EngineTrouble::kUnreachable, at);
          if (!ask_models) {
            if (a.status < 500) return OnProbeOk(*e, at);
            return OnTrouble(*e, EngineTrouble::kErrors, at);
          }
          if (a.status == 200) {
            const auto models = ReadModels(a.body);
            SetModels(*e, models.ok() ? models->names : std::vector<std::string>(), models.ok() ? models->max_model_len : 0);
          } else if (a.status == 404 || a.status == 405 || a.status == 501) {
            SetAnyModel(*e);
          }
          if (a.status < 500) OnProbeOk(*e, at);
        });
  }
}

bool Gateway::ScrapeMetrics(std::function<void(std::string)> ready) {
  if (scrapes_ >= kMostScrapes) return false;
  ++scrapes_;
  boost::asio::post(scrape_pool_, [this, report = ReportOf(*this), ready = std::move(ready)]() mutable {
    boost::asio::post(io_, [this, text = MetricsText(report), ready = std::move(ready)]() mutable {
      --scrapes_;
      ready(std::move(text));
    });
  });
  return true;
}

}  // namespace foretoken
