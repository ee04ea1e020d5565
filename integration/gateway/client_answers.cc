// What the gateway answers itself: its health, models, loads and metrics.
#include <boost/json.hpp>
#include <string>

#include "integration/gateway/client_session.h"
#include "integration/metrics/metric_set.h"

namespace foretoken {
namespace {

namespace json = boost::json;

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
    for (const Engine* e : gateway_.engines())
      loads.push_back({{"worker", e->url.name()}, {"load", gateway_.routing().outstanding(e->id)}});
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
    for (const Engine* e : gateway_.engines())
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

}  // namespace foretoken
