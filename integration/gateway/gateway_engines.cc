// The engines of a gateway: how they come and go, what they serve, and what is seen of them apart from requests.
#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <boost/json.hpp>
#include <iterator>
#include <set>
#include <utility>

#include "integration/engines/openai/engine_facts.h"
#include "integration/gateway/engine_probe.h"
#include "integration/gateway/exchange.h"
#include "integration/gateway/gateway.h"

namespace foretoken {
namespace {

constexpr size_t kMostModels = 4096;
constexpr int64_t kServingProbes = 5;  // a serving engine is probed so many times less often than one that is out
// An engine that has just said what it serves is not asked again for a connection of its own.
constexpr Duration kVerifiedFor = Duration::Millis(50);

// One token, as cheap as a request can be: what an engine that hung must answer before users' requests go there again.
std::string TrialBody(const std::string& model) {
  return boost::json::serialize(boost::json::object{{"model", model}, {"prompt", "1"}, {"max_tokens", 1}, {"temperature", 0}});
}

}  // namespace

// ---- Membership.

Result<Membership::Change> Gateway::AddEngine(const std::string& text, MemberSource source, const std::string& label) {
  auto url = EngineUrl::Parse(text);
  if (!url.ok()) return url.error();
  const InstanceId fresh(static_cast<uint32_t>(by_id_.size()));
  const Membership::Change change = members_.Add(url->name(), source, fresh);
  if (!change.fresh) {
    if (!label.empty()) engine(change.id).label = label;
    Apply(change);
    return change;
  }
  const InstanceId id = routing_->AddEngine(url->name());
  auto made = std::make_unique<Engine>(io_, std::move(url).value(), id, EngineHealth::Options());
  made->label = label;
  boost::system::error_code code;
  const auto address = boost::asio::ip::make_address(made->url.host, code);
  if (!code) made->endpoints.emplace_back(address, static_cast<uint16_t>(std::stoi(made->url.port)));
  made->health.OnTrouble(EngineTrouble::kUnreachable, Now());  // until it answers
  engines_.push_back(made.get());
  by_id_.push_back(std::move(made));
  routing_->SetUsable(id, false);
  return change;
}

// What membership says of an engine, to it and to the candidates.
void Gateway::Apply(const Membership::Change& change) {
  Engine* e = FindEngine(change.id);
  const Membership::Member* m = members_.Find(change.id);
  if (e == nullptr || m == nullptr) return;
  e->state = m->state;
  e->leaving = m->leaving;
  if (e->leaving) e->CloseIdle();
  if (change.changed) {
    const char* what = e->leaving                             ? "leaves"
                       : e->state == InstanceState::kServing  ? "serves"
                       : e->state == InstanceState::kCordoned ? "is cordoned"
                                                              : "is drained";
    Tell(LogLevel::kInfo, "worker_changed", *e, std::string(" ") + what);
    e->next_probe = Instant();
  }
  RecountModels();
  RefreshCandidates(Now());
}

Membership::Change Gateway::RemoveEngine(InstanceId id, MemberSource source) {
  const Membership::Change change = members_.Remove(id, source);
  Apply(change);
  return change;
}

Result<Membership::Change> Gateway::SetEngineState(InstanceId id, InstanceState state) {
  auto change = members_.SetState(id, state);
  if (change.ok()) Apply(*change);
  return change;
}

Result<InstanceId> Gateway::FindEngine(const std::string& text) const {
  for (const Engine* e : engines_)
    if (!e->label.empty() && e->label == text) return e->id;
  if (const auto url = EngineUrl::Parse(text); url.ok())
    if (const Membership::Member* m = members_.Find(url->name())) return m->id;
  return members_.Named(text);
}

bool Gateway::HasLeft(const std::string& text) const {
  const auto url = EngineUrl::Parse(text);
  return members_.HasLeft(text) || (url.ok() && members_.HasLeft(url->name()));
}

Status Gateway::Follow(const std::vector<std::string>& urls, MemberSource source) {
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (const std::string& text : urls) {
    const auto url = EngineUrl::Parse(text);
    if (!url.ok()) return url.error();
    if (!seen.insert(url->name()).second) return Error{"worker " + url->name() + " is named twice"};
    names.push_back(url->name());
  }
  const Membership::Difference d = members_.Compare(names, source);
  Handover handover{source, d.leave, {}, Now() + config_.dead_after};
  for (const std::string& name : d.join) {
    const auto added = AddEngine(name, source);
    if (!added.ok()) return added.error();
    if (added->fresh) Tell(LogLevel::kInfo, "worker_joins", engine(added->id), " joins");
    handover.join.push_back(added->id);
  }
  if (!d.leave.empty() || !d.join.empty()) ++membership_counters_.lists_followed;
  std::erase_if(handovers_, [source](const Handover& h) { return h.source == source; });  // this list says it all
  handovers_.push_back(std::move(handover));
  HandOver(Now());
  return {};
}

// Whom a list no longer names leaves when those that it names anew are there, or have been waited for: a fleet that is replaced
// as a whole serves all the time.
void Gateway::HandOver(Instant now) {
  std::erase_if(handovers_, [this, now](const Handover& h) {
    const bool ready = std::all_of(h.join.begin(), h.join.end(), [this](InstanceId id) {
      const Engine* e = FindEngine(id);
      return e == nullptr || e->leaving || (e->models_known && e->health.serving());
    });
    if (!ready && now < h.until) return false;
    for (const InstanceId id : h.leave) RemoveEngine(id, h.source);
    return true;
  });
}

// Those that were to leave and have nothing left.
void Gateway::Reclaim() {
  for (size_t i = 0; i < engines_.size();) {
    Engine* e = engines_[i];
    if (!e->leaving || !e->uses.empty() || e->probing || e->resolving || !members_.OnEmpty(e->id)) {
      ++i;
      continue;
    }
    Tell(LogLevel::kInfo, "worker_left", *e, " has left");
    if (config_.on_left) config_.on_left(e->url.name());
    routing_->RemoveEngine(e->id);
    engines_.erase(engines_.begin() + static_cast<std::ptrdiff_t>(i));
    by_id_[e->id.value()].reset();
  }
}

// ---- Models.

Gateway::ModelLookup Gateway::FindModel(const std::string& name) {
  const auto at = models_.find(name);
  const bool served = any_model_ || std::find(model_names_.begin(), model_names_.end(), name) != model_names_.end();
  if (at != models_.end() && served) return {true, at->second};
  // Engines that do not say what they serve are asked for anything; so is a gateway that no engine has answered yet.
  if ((!any_model_ && !model_names_.empty()) || models_.size() >= kMostModels) return {};
  if (!any_model_) return {true, ModelId(kMostModels)};  // nobody serves it as far as is known: 503, not 404
  const ModelId id(static_cast<uint32_t>(models_.size()));
  models_.emplace(name, id);
  for (Engine* e : engines_)
    if (e->any_model) SetAnyModel(*e);
  return {true, id};
}

void Gateway::SetModels(Engine& engine, std::vector<std::string> models, int64_t max_model_len) {
  engine.any_model = models.empty();
  engine.max_model_len = max_model_len;
  if (engine.any_model) return SetAnyModel(engine);
  engine.models_known = true;
  if (engine.models == models) return;
  std::vector<ModelId> ids;
  for (const std::string& name : models) {
    if (models_.size() >= kMostModels) break;
    ids.push_back(models_.emplace(name, ModelId(static_cast<uint32_t>(models_.size()))).first->second);
  }
  engine.models = std::move(models);
  routing_->SetModels(engine.id, std::move(ids));
  RecountModels();
}

void Gateway::SetAnyModel(Engine& engine) {
  engine.any_model = engine.models_known = true;
  std::vector<ModelId> ids;
  for (const auto& [name, id] : models_) ids.push_back(id);
  routing_->SetModels(engine.id, std::move(ids));
  RecountModels();
}

void Gateway::RecountModels() {
  model_names_.clear();
  any_model_ = false;
  std::set<std::string_view> seen;
  for (const Engine* e : engines_) {
    if (e->leaving) continue;
    any_model_ |= e->any_model;
    for (const std::string& name : e->models)
      if (seen.insert(name).second) model_names_.push_back(name);
  }
}

bool Gateway::OtherServes(const Engine& engine, const std::string& model) const {
  return std::any_of(engines_.begin(), engines_.end(), [&](const Engine* e) {
    return e != &engine && e->state == InstanceState::kServing && e->health.serving() &&
           (e->any_model || std::find(e->models.begin(), e->models.end(), model) != e->models.end());
  });
}

// ---- What is seen of engines.

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
  Tell(LogLevel::kInfo, "engine_back", engine, engine.restarts++ == 0 ? " is there" : " is back");
  routing_->OnRestart(engine.id, now);  // unreachable or crashed: another start of it, which holds nothing
  routing_->BeginSlowStart(engine.id, now);
  AskLimits(engine);
}

// How large its KV cache is, where it says so.
void Gateway::AskLimits(Engine& engine) {
  EngineProbe::Run(io_, engine, {"/metrics", ""}, config_.dead_after, [this, id = engine.id](const ProbeAnswer& a) {
    Engine* e = FindEngine(id);
    if (a.status != 200 || e == nullptr) return;
    const EngineMetrics m = ReadMetrics(a.body);
    routing_->mirror(id).SetLimits(e->max_model_len, m.kv_blocks.value_or(0), m.block_tokens.value_or(0), Now());
  });
}

void Gateway::RefreshCandidates(Instant now) {
  for (const Engine* e : engines_)
    routing_->SetUsable(e->id, e->state == InstanceState::kServing && e->models_known && e->health.Usable(now));
}

bool Gateway::AllAsked() const {
  return std::all_of(engines_.begin(), engines_.end(), [](const Engine* e) { return e->models_known || e->asked; });
}

bool Gateway::HasLiveEngine() const {
  return std::any_of(engines_.begin(), engines_.end(),
                     [](const Engine* e) { return e->state == InstanceState::kServing && e->health.serving(); });
}

// ---- Probes.

void Gateway::ProbeDue(Instant now) {
  for (Engine* e : engines_) {
    if (e->probing || now < e->next_probe) continue;
    if (e->endpoints.empty()) {
      Resolve(*e);
      continue;
    }
    if (e->health.trouble() == EngineTrouble::kHung) {
      if (now >= e->health.retry_at()) TryHung(*e, now);
    } else {
      Probe(*e, now);
    }
  }
}

// In turns its health and what it serves; the latter while it is out, or may be another one.
void Gateway::Probe(Engine& engine, Instant now) {
  engine.probing = true;
  engine.next_probe = now + config_.probe_every * (engine.health.serving() ? kServingProbes : 1);
  engine.ask_health = !engine.ask_health && engine.models_known && engine.health.serving() && !engine.suspect;
  EngineProbe::Run(io_, engine, {engine.ask_health ? "/health" : "/v1/models", ""}, config_.dead_after,
                   [this, id = engine.id, health = engine.ask_health, then = engine.suspicions](const ProbeAnswer& a) {
                     Engine* e = FindEngine(id);
                     if (e == nullptr) return;
                     e->probing = false;
                     e->asked = true;
                     health ? OnHealthAnswer(*e, a, Now()) : OnModelsAnswer(*e, a, then);
                   });
}

void Gateway::OnHealthAnswer(Engine& engine, const ProbeAnswer& a, Instant now) {
  if (a.status == 0) return OnTrouble(engine, a.silent() ? EngineTrouble::kHung : EngineTrouble::kUnreachable, now);
  if (a.status < 500) return OnProbeOk(engine, now);
  OnTrouble(engine, EngineTrouble::kErrors, now);
}

// `suspicions`: when it was asked; what it says is of no later time.
void Gateway::OnModelsAnswer(Engine& engine, const ProbeAnswer& a, uint64_t suspicions) {
  const Instant now = Now();
  if (a.status == 0) {
    OnTrouble(engine, a.silent() ? EngineTrouble::kHung : EngineTrouble::kUnreachable, now);
    if (!a.silent()) Resolve(engine);  // its name may mean another address by now
    return EndVerification(engine, false);
  }
  if (a.status >= 500) {
    OnTrouble(engine, EngineTrouble::kErrors, now);
    return EndVerification(engine, false);
  }
  const bool silent = a.status == 401 || a.status == 403 || a.status == 404 || a.status == 405 || a.status == 501;
  if (a.status == 200) {
    auto models = ReadModels(a.body);
    std::vector<std::string> names = models.ok() ? std::move(models->names) : std::vector<std::string>();
    const int64_t length = models.ok() ? models->max_model_len : 0;
    const bool same =
        engine.models.empty() || names.empty() || std::any_of(names.begin(), names.end(), [&engine](const std::string& n) {
          return std::find(engine.models.begin(), engine.models.end(), n) != engine.models.end();
        });
    if (!same) return Replace(engine, std::move(names), length);
    SetModels(engine, std::move(names), length);
  } else if (silent && engine.models.empty()) {
    SetAnyModel(engine);
  }
  if (suspicions == engine.suspicions) {
    engine.suspect = false;
    engine.verified_at = now;
  }
  OnProbeOk(engine, now);
  EndVerification(engine, true);
}

// Another engine has taken the address: nothing that was learnt of the one that was there holds for it, and no request for that one's models
// may reach it. So it is another member, under a number of its own.
void Gateway::Replace(Engine& old, std::vector<std::string> models, int64_t max_model_len) {
  ++membership_counters_.replaced;
  const Membership::Member* member = members_.Find(old.id);
  const uint32_t wanted = member == nullptr ? 0 : member->wanted_by;
  Tell(LogLevel::kWarning, "worker_replaced", old,
       " serves " + models.front() + " and no longer " + old.models.front() + ": it is another engine");
  const std::string url = old.url.name(), label = old.label;
  const auto endpoints = old.endpoints;
  members_.OnReplaced(old.id);
  Apply({old.id, false, false});
  old.label.clear();
  for (const MemberSource source : {MemberSource::kCommand, MemberSource::kFile, MemberSource::kDns}) {
    if ((wanted & (1U << static_cast<uint32_t>(source))) == 0) continue;
    const auto added = AddEngine(url, source, label);
    if (!added.ok() || !added->fresh) continue;
    Engine& fresh = engine(added->id);
    fresh.endpoints = endpoints;
    fresh.asked = true;
    fresh.verified_at = Now();
    SetModels(fresh, models, max_model_len);
    OnProbeOk(fresh, Now());
  }
  EndVerification(old, false);
}

bool Gateway::MustVerify(Engine& engine, bool fresh_connection) {
  if (engine.any_model) return false;
  const Instant now = Now();
  const bool alone = engine.idle() == 0 && std::next(engine.uses.begin()) == engine.uses.end();
  const bool cold = fresh_connection && alone && now - engine.verified_at > kVerifiedFor;
  if (!engine.suspect && !cold) return false;
  if (!engine.suspect) engine.Suspect();
  ++membership_counters_.verified;
  if (!engine.probing) Probe(engine, now);
  return true;
}

// Whoever waits to know is told; unless the answer was too old to say.
void Gateway::EndVerification(Engine& engine, bool answered) {
  const bool ok = answered && !engine.leaving && engine.health.serving();
  std::vector<Exchange*> waiting;
  for (EngineUse& use : engine.uses) {
    auto& x = static_cast<Exchange&>(use);
    if (x.verifying()) waiting.push_back(&x);
  }
  if (ok && engine.suspect && !waiting.empty()) return Probe(engine, Now());
  for (Exchange* x : waiting) x->OnVerified(ok);
}

void Gateway::OnUnknownModel(Engine& engine) {
  ++membership_counters_.unknown_model;
  engine.Suspect();
}

// It may hang in a part that its health does not show, so it must produce a token; no user waits for that.
void Gateway::TryHung(Engine& engine, Instant now) {
  engine.probing = true;
  engine.next_probe = now + config_.probe_every;
  const std::string model = engine.models.empty() ? engine.model_asked : engine.models.front();
  EngineProbe::Run(io_, engine, {"/v1/completions", TrialBody(model)}, config_.dead_after,
                   [this, id = engine.id](const ProbeAnswer& a) {
                     Engine* e = FindEngine(id);
                     if (e == nullptr) return;
                     e->probing = false;
                     const Instant at = Now();
                     if (a.status == 0 && !a.silent()) {
                       e->health.OnTrouble(EngineTrouble::kUnreachable, at);
                     } else if (a.status == 0 || a.status >= 500) {
                       e->health.OnTrouble(EngineTrouble::kHung, at);
                     } else {
                       OnGoodAnswer(*e);
                       e->Suspect();  // it may have been restarted meanwhile
                     }
                     EndVerification(*e, false);
                   });
}

void Gateway::Resolve(Engine& engine) {
  boost::system::error_code code;
  boost::asio::ip::make_address(engine.url.host, code);
  if (!code || engine.resolving) return;
  engine.resolving = true;
  engine.next_probe = Now() + config_.probe_every * kServingProbes;
  resolver_.async_resolve(engine.url.host, engine.url.port,
                          [this, id = engine.id](const boost::system::error_code& failed, const auto& found) {
                            Engine* e = FindEngine(id);
                            if (e == nullptr) return;
                            e->resolving = false;
                            e->asked = true;
                            if (failed || found.empty()) return;  // tried again; it stays out until then
                            std::vector<boost::asio::ip::tcp::endpoint> endpoints;
                            for (const auto& entry : found) endpoints.push_back(entry.endpoint());
                            if (endpoints != e->endpoints) e->next_probe = Instant();
                            e->endpoints = std::move(endpoints);
                          });
}

}  // namespace foretoken
