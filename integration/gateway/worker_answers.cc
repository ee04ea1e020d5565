// The gateway's workers, as its admin address shows and changes them: GET /workers, GET /workers/W, POST /workers {"url": U} or {"kind": K},
// DELETE /workers/W, POST /workers/W/cordon, /uncordon, /drain. W: number, URL or label, percent-encoded; for POST and DELETE also ?url=.
#include <boost/json.hpp>
#include <string>

#include "integration/gateway/client_session.h"

namespace foretoken {
namespace {

namespace json = boost::json;

std::string_view StateOf(const Gateway& gateway, const Engine& e) {
  if (e.leaving) return "leaving";
  if (e.state == InstanceState::kDraining) return "draining";
  if (e.state == InstanceState::kCordoned) return "cordoned";
  if (!e.health.serving()) return "out";
  return gateway.slow_start().IsJoining(e.id) ? "joining" : "serving";
}

// Its own stream, and what the mirror makes of it.
json::object SyncObject(const LiveMirror& live) {
  const LiveShadow::Counters& c = live.shadow().counters();
  const SequencerCounters& s = live.sync();
  return {{"version", live.version()},
          {"why", live.shadow().why()},
          {"steps_decided", c.steps},
          {"steps_followed", c.followed},
          {"disagreements", c.disagreements},
          {"last_disagreement", live.shadow().last_disagreement()},
          {"snapshots_compared", c.compared},
          {"snapshots_differed", c.differed},
          {"last_difference", live.shadow().last_difference()},
          {"snapshots_restored", c.restored},
          {"snapshots_asked", live.counters().snapshots_asked},
          {"repairs", live.counters().repairs},
          {"repair_seconds", live.counters().repair_s},
          {"longest_repair_seconds", live.counters().longest_repair_s},
          {"messages", s.applied},
          {"reordered", s.reordered},
          {"repeated", s.duplicate},
          {"gaps", s.gap},
          {"resyncs", s.resync},
          {"restarts", s.epoch_change},
          {"foreign_requests", live.counters().foreign},
          {"cached_predicted", live.counters().cached_predicted},
          {"cached_exact", live.counters().cached_exact},
          {"front_in_seconds", live.front_in().seconds()},
          {"front_out_seconds", live.front_out().seconds()}};
}

json::object WorkerObject(Gateway& gateway, const Engine& e, int32_t load) {
  json::array models;
  for (const std::string& m : e.models) models.emplace_back(m);
  json::object o{{"id", e.id.value()},
                 {"url", e.url.name()},
                 {"state", StateOf(gateway, e)},
                 {"models", models},
                 {"is_healthy", e.health.serving()},
                 {"trouble", TroubleName(e.health.trouble())},
                 {"load", load},
                 {"under_way", e.uses.size()},
                 {"starts", e.restarts},
                 {"requests", e.counters.requests},
                 {"finished", e.counters.finished},
                 {"failed", e.counters.failed}};
  const EngineMirror& mirror = gateway.routing().mirror(e.id);
  o["state_level"] = NameOf(mirror.level(gateway.Now()));
  if (mirror.live() != nullptr) o["sync"] = SyncObject(*mirror.live());
  if (!e.label.empty()) o["name"] = e.label;
  if (e.max_model_len > 0) o["max_model_len"] = e.max_model_len;
  if (const auto window = gateway.slow_start().window(e.id)) o["window"] = *window;
  json::array sources;
  const Membership::Member* m = gateway.members().Find(e.id);
  for (const auto& [source, name] : {std::pair(MemberSource::kCommand, "command"), std::pair(MemberSource::kFile, "file"),
                                     std::pair(MemberSource::kDns, "dns")})
    if (m != nullptr && (m->wanted_by & (1U << static_cast<uint32_t>(source))) != 0) sources.emplace_back(name);
  o["wanted_by"] = std::move(sources);
  return o;
}

// Percent-encoding undone.
std::string Decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '%' && i + 2 < text.size() && std::isxdigit(static_cast<unsigned char>(text[i + 1])) &&
                        std::isxdigit(static_cast<unsigned char>(text[i + 2]));
    if (!escape) {
      out += text[i];
      continue;
    }
    out += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
    i += 2;
  }
  return out;
}

// The value of `key` in a query string.
std::string QueryValue(std::string_view target, std::string_view key) {
  const size_t mark = target.find('?');
  if (mark == std::string_view::npos) return "";
  for (std::string_view rest = target.substr(mark + 1); !rest.empty();) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    if (pair.substr(0, key.size()) == key && pair.substr(key.size(), 1) == "=") return Decoded(pair.substr(key.size() + 1));
  }
  return "";
}

// A text member of a JSON object; empty: none.
std::string BodyValue(const std::string& body, std::string_view key) {
  json::error_code ec;
  const json::value v = json::parse(body, ec);
  const json::value* at = ec || !v.is_object() ? nullptr : v.as_object().if_contains(json::string_view(key.data(), key.size()));
  return at != nullptr && at->is_string() ? std::string(at->as_string()) : "";
}

}  // namespace

// Engines are added and removed on the admin address where there is one, else here; with API keys only by who has one.
bool ClientSession::MayAdminister() const {
  if (gateway_.config().admin_port != 0 && door_ != GatewayDoor::kAdmin) return false;
  return gateway_.KeyIsValid(head_.authorization);
}

void ClientSession::AnswerWorker(InstanceId id, int status, std::string_view what) {
  const Engine& e = gateway_.engine(id);
  json::object o = WorkerObject(gateway_, e, gateway_.routing().outstanding(id));
  o["status"] = what;
  AnswerOptions options;
  options.status = status;
  Answer(json::serialize(o), options);
}

void ClientSession::HandleWorkers() {
  // /workers, /workers/W, /workers/W/VERB
  std::string_view rest = head_.path().substr(std::string_view("/workers").size());
  if (!rest.empty()) rest.remove_prefix(1);
  std::string verb;
  for (const std::string_view v : {"cordon", "uncordon", "drain"})
    if (rest.size() > v.size() + 1 && rest.ends_with(v) && rest[rest.size() - v.size() - 1] == '/') verb = v;
  if (!verb.empty()) rest.remove_suffix(verb.size() + 1);
  const std::string worker = Decoded(rest);
  if (head_.method == "GET" || head_.method == "HEAD") return ShowWorkers(worker);
  if (!MayAdminister())
    return SendError({401,
                      "Workers are changed on the admin address, with an API key where one is set.",
                      "authentication_error",
                      "",
                      "",
                      {}});
  if (head_.method == "POST" && verb.empty()) return AddWorker();
  if (head_.method == "POST" || head_.method == "DELETE") return ChangeWorker(worker, verb);
  SendError({405,
             "Workers take GET, POST and DELETE.",
             "invalid_request_error",
             "",
             "method_not_allowed",
             {},
             "GET, HEAD, POST, DELETE"});
}

void ClientSession::ShowWorkers(const std::string& worker) {
  if (worker.empty()) {
    json::array workers;
    for (const Engine* e : gateway_.engines())
      workers.push_back(WorkerObject(gateway_, *e, gateway_.routing().outstanding(e->id)));
    return Answer(json::serialize(json::object{{"total", workers.size()}, {"workers", workers}}), {});
  }
  const auto id = gateway_.FindEngine(worker);
  if (!id.ok()) return SendError({404, id.error().message, "invalid_request_error", "url", "unknown_worker", {}});
  AnswerWorker(*id, 200, "there");
}

void ClientSession::AddWorker() {
  std::string url = QueryValue(head_.target, "url");
  if (url.empty()) url = BodyValue(body_, "url");
  const std::string kind = BodyValue(body_, "kind");
  if (url.empty() && !kind.empty()) {
    if (!gateway_.config().make_worker)
      return SendError(
          {400, "This gateway makes no engines: name one that runs by its url.", "invalid_request_error", "kind", "", {}});
    const auto made = gateway_.config().make_worker(kind);
    if (!made.ok()) return SendError({400, made.error().message, "invalid_request_error", "kind", "", {}});
    url = *made;
  }
  const auto added = gateway_.AddEngine(url, MemberSource::kCommand, BodyValue(body_, "name"));
  if (!added.ok()) return SendError({400, added.error().message, "invalid_request_error", "url", "", {}});
  AnswerWorker(added->id, added->changed ? 202 : 200, added->changed ? "accepted" : "there already");
}

void ClientSession::ChangeWorker(std::string worker, const std::string& verb) {
  if (worker.empty()) worker = QueryValue(head_.target, "url");
  if (worker.empty()) worker = BodyValue(body_, "url");
  const auto id = gateway_.FindEngine(worker);
  if (!id.ok() && verb.empty() && gateway_.HasLeft(worker))
    return Answer(json::serialize(json::object{{"worker", worker}, {"state", "gone"}, {"status", "gone already"}}), {});
  if (!id.ok()) return SendError({404, id.error().message, "invalid_request_error", "url", "unknown_worker", {}});
  if (verb.empty()) {
    const Membership::Change change = gateway_.RemoveEngine(*id, MemberSource::kCommand);
    return AnswerWorker(*id, 202, change.changed ? "leaving" : "leaving already");
  }
  const InstanceState state = verb == "cordon"     ? InstanceState::kCordoned
                              : verb == "uncordon" ? InstanceState::kServing
                                                   : InstanceState::kDraining;
  const auto change = gateway_.SetEngineState(*id, state);
  if (!change.ok()) return SendError({409, change.error().message, "invalid_request_error", "url", "leaving", {}});
  AnswerWorker(*id, 200, change->changed ? "changed" : "so already");
}

}  // namespace foretoken
