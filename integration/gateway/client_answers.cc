// What the gateway answers itself: its health, models, workers, loads and metrics.
#include <boost/json.hpp>
#include <string>

#include "integration/gateway/client_session.h"
#include "integration/metrics/metric_set.h"

namespace foretoken {
namespace {

namespace json = boost::json;

json::object WorkerObject(const Engine& e, int32_t load) {
  json::array models;
  for (const std::string& m : e.models) models.emplace_back(m);
  json::object o{{"id", e.id.value()},
                 {"url", e.url.name()},
                 {"models", models},
                 {"is_healthy", e.health.serving()},
                 {"trouble", TroubleName(e.health.trouble())},
                 {"load", load},
                 {"requests", e.counters.requests},
                 {"finished", e.counters.finished},
                 {"failed", e.counters.failed}};
  if (e.max_model_len > 0) o["max_model_len"] = e.max_model_len;
  return o;
}

// The value of `key` in a query string; percent-encoding undone.
std::string QueryValue(std::string_view target, std::string_view key) {
  const size_t mark = target.find('?');
  if (mark == std::string_view::npos) return "";
  for (std::string_view rest = target.substr(mark + 1); !rest.empty();) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    if (pair.substr(0, key.size()) != key || pair.substr(key.size(), 1) != "=") continue;
    std::string out;
    for (size_t i = key.size() + 1; i < pair.size(); ++i) {
      const bool escape = pair[i] == '%' && i + 2 < pair.size() + 0 && std::isxdigit(static_cast<unsigned char>(pair[i + 1])) &&
                          std::isxdigit(static_cast<unsigned char>(pair[i + 2]));
      if (escape) {
        out += static_cast<char>(std::stoi(std::string(pair.substr(i + 1, 2)), nullptr, 16));
        i += 2;
      } else {
        out += pair[i];
      }
    }
    return out;
  }
  return "";
}

}  // namespace

void ClientSession::Handle() {
  state_ = State::kBusy;
  const std::string_view path = head_.path();
  const bool get = head_.method == "GET" || head_.method == "HEAD";
  const GatewayError wrong_method{405,
                                  "This address does not take " + head_.method + ".",
                                  "invalid_request_error",
                                  "",
                                  "method_not_allowed",
                                  {},
                                  endpoint_ ? "POST" : "GET, HEAD"};
  if (endpoint_) {
    if (head_.method != "POST") return SendError(wrong_method);
    if (gateway_.draining()) return SendError({503, "This gateway is shutting down.", "server_error", "", "draining", 1});
    return exchange_.Start(head_, std::move(body_), std::exchange(reserved_, 0), *endpoint_);
  }
  const bool open = door_ == GatewayDoor::kPublic;
  if (path == "/metrics" && (door_ == GatewayDoor::kMetrics || (open && gateway_.config().prometheus_port == 0))) {
    return HandleMetrics();
  }
  if (path == "/liveness") return Answer("{\"status\":\"ok\"}", {});
  if (path == "/health" || path == "/readiness") {
    if (gateway_.draining()) return SendError({503, "This gateway is shutting down.", "server_error", "", "draining", 1});
    if (!gateway_.HasLiveEngine()) return SendError({503, "No engine is alive.", "server_error", "", "no_live_engine", 1});
    return Answer("{\"status\":\"ok\"}", {});
  }
  if (open && (path == "/v1/models" || path.substr(0, 11) == "/v1/models/"))
    return get ? HandleModels(path) : SendError(wrong_method);
  if (door_ != GatewayDoor::kMetrics && path == "/get_loads") {
    json::array loads;
    for (const auto& e : gateway_.engines())
      if (!e->removed) loads.push_back({{"worker", e->url.name()}, {"load", gateway_.routing().outstanding(e->id)}});
    return Answer(json::serialize(json::object{{"workers", loads}}), {});
  }
  if (door_ != GatewayDoor::kMetrics && (path == "/workers" || path.substr(0, 9) == "/workers/")) return HandleWorkers();
  SendError(
      {404, "There is no " + std::string(path.substr(0, 200)) + " here.", "invalid_request_error", "", "unknown_url", {}});
}

void ClientSession::HandleMetrics() {
  const bool begun = gateway_.ScrapeMetrics([self = shared_from_this()](const std::string& made) {
    if (self->state_ != State::kBusy) return;  // closed meanwhile
    AnswerOptions text;
    text.content_type = kMetricsContentType;
    self->Answer(made, text);
  });
  if (!begun) SendError({503, "Too many scrapes are under way.", "server_error", "", "too_many_scrapes", 1});
}

void ClientSession::HandleModels(std::string_view path) {
  const auto object = [this](const std::string& name) {
    json::object o{{"id", name}, {"object", "model"}, {"created", 0}, {"owned_by", "foretoken"}};
    for (const auto& e : gateway_.engines())
      if (e->max_model_len > 0 && std::find(e->models.begin(), e->models.end(), name) != e->models.end())
        o["max_model_len"] = e->max_model_len;
    return o;
  };
  if (path.size() > 11) {
    const std::string name(path.substr(11));
    const auto& names = gateway_.model_names();
    if (std::find(names.begin(), names.end(), name) == names.end())
      return SendError(
          {404, "The model `" + name + "` does not exist here.", "invalid_request_error", "model", "model_not_found", {}});
    return Answer(json::serialize(object(name)), {});
  }
  json::array data;
  for (const std::string& name : gateway_.model_names()) data.push_back(object(name));
  Answer(json::serialize(json::object{{"object", "list"}, {"data", data}}), {});
}

// Engines are added and removed on the admin address where there is one, else here; with API keys only by who has one.
bool ClientSession::MayAdminister() const {
  if (gateway_.config().admin_port != 0 && door_ != GatewayDoor::kAdmin) return false;
  return gateway_.KeyIsValid(head_.authorization);
}

void ClientSession::HandleWorkers() {
  const std::string_view path = head_.path();
  if (head_.method == "GET" || head_.method == "HEAD") {
    json::array workers;
    for (const auto& e : gateway_.engines())
      if (!e->removed) workers.push_back(WorkerObject(*e, gateway_.routing().outstanding(e->id)));
    return Answer(json::serialize(json::object{{"total", workers.size()}, {"workers", workers}}), {});
  }
  if (!MayAdminister())
    return SendError({401,
                      "Workers are changed on the admin address, with an API key where one is set.",
                      "authentication_error",
                      "",
                      "",
                      {}});
  std::string url = QueryValue(head_.target, "url");
  if (url.empty() && path.size() > 9) {
    const std::string id(path.substr(9));
    for (const auto& e : gateway_.engines())
      if (std::to_string(e->id.value()) == id && !e->removed) url = e->url.name();
  }
  if (url.empty() && !body_.empty()) {
    json::error_code ec;
    const json::value v = json::parse(body_, ec);
    const json::value* at = ec || !v.is_object() ? nullptr : v.as_object().if_contains("url");
    if (at != nullptr && at->is_string()) url = std::string(at->as_string());
  }
  AnswerOptions accepted;
  if (head_.method == "POST") {
    const auto added = gateway_.AddEngine(url);
    if (!added.ok()) return SendError({400, added.error().message, "invalid_request_error", "url", "", {}});
    accepted.status = 202;
    return Answer(json::serialize(json::object{{"id", added->value()}, {"url", url}, {"status", "accepted"}}), accepted);
  }
  if (head_.method != "DELETE")
    return SendError({405,
                      "Workers take GET, POST and DELETE.",
                      "invalid_request_error",
                      "",
                      "method_not_allowed",
                      {},
                      "GET, HEAD, POST, DELETE"});
  if (!gateway_.RemoveEngine(url))
    return SendError({404, "There is no worker \"" + url + "\" here.", "invalid_request_error", "url", "", {}});
  Answer(json::serialize(json::object{{"url", url}, {"status", "removed"}}), {});
}

}  // namespace foretoken
