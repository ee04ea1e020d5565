#include "integration/load/fake_engine.h"

#include <signal.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <utility>

#include "integration/load/fake_answer.h"

namespace foretoken {
namespace {

constexpr std::string_view kModes[] = {"ok", "500", "503", "429", "400", "hang", "close", "die", "stall", "errevent"};

Result<int64_t> Number(std::string_view key, std::string_view value) {
  int64_t n = 0;
  const auto r = std::from_chars(value.data(), value.data() + value.size(), n);
  if (r.ec != std::errc() || r.ptr != value.data() + value.size() || n < 0)
    return Error{std::string(key) + "=" + std::string(value) + ": must be a whole number >= 0"};
  return n;
}

Status SetMode(FakeEngineOptions& options, std::string_view value) {
  if (std::find(std::begin(kModes), std::end(kModes), value) == std::end(kModes)) {
    std::string known;
    for (const std::string_view m : kModes) known.append(known.empty() ? "" : ", ").append(m);
    return Error{"mode=" + std::string(value) + ": one of " + known};
  }
  options.mode = value;
  return {};
}

}  // namespace

Result<Duration> ParseDelay(std::string_view text) {
  if (text == "0") return Duration();
  double n = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
  const std::string_view unit(r.ptr, static_cast<size_t>(text.data() + text.size() - r.ptr));
  const double scale = unit == "s" ? 1 : unit == "ms" ? 1e-3 : unit == "us" ? 1e-6 : 0;
  if (r.ec != std::errc() || scale == 0 || n < 0 || n > 1e6)
    return Error{"\"" + std::string(text) + "\": a delay is a number with its unit, such as 20ms, 500us, 1.5s or 0"};
  return Duration::FromSeconds(n * scale);
}

Status SetFakeEngineOption(FakeEngineOptions& options, std::string_view key, std::string_view value) {
  if (key == "ttft" || key == "itl") {
    const auto delay = ParseDelay(value);
    if (!delay.ok()) return delay.error();
    (key == "ttft" ? options.ttft : options.itl) = *delay;
    return {};
  }
  if (key == "mode") return SetMode(options, value);
  if (key == "poison") {
    options.poison = value;
    return {};
  }
  if (key == "health") {
    if (value != "ok" && value != "bad") return Error{"health=" + std::string(value) + ": ok or bad"};
    options.healthy = value == "ok";
    return {};
  }
  const auto n = Number(key, value);
  if (!n.ok()) return n.error();
  if (key == "tokens") {
    options.tokens = std::max<int64_t>(*n, 1);
  } else if (key == "per_chunk") {
    options.tokens_per_chunk = std::max<int64_t>(*n, 1);
  } else if (key == "die_after") {
    options.die_after = *n;
  } else if (key == "pad") {
    options.pad = static_cast<size_t>(*n);
  } else if (key == "early") {
    options.early_headers = *n != 0;
  } else {
    return Error{"unknown option \"" + std::string(key) +
                 "\": ttft, itl, tokens, per_chunk, mode, die_after, pad, early, health, poison"};
  }
  return {};
}

FakeEngine::FakeEngine(EventLoop& loop, FakeEngineOptions options)
    : options_(std::move(options)),
      server_(loop, [this](HttpConnection& c, const HttpServer::Request& r) { OnRequest(c, r); }) {}

Result<uint16_t> FakeEngine::Listen(const std::string& host, uint16_t port) {
  auto bound = server_.Listen(host, port);
  if (bound.ok() && options_.name.empty()) options_.name = host + ":" + std::to_string(*bound);
  return bound;
}

void FakeEngine::OnRequest(HttpConnection& connection, const HttpServer::Request& request) {
  const std::string_view target = request.head.target();
  const std::string_view path = target.substr(0, target.find('?'));
  const std::string_view query = path.size() < target.size() ? target.substr(path.size() + 1) : std::string_view();
  if (path == "/v1/chat/completions") return Generate(connection, request, true);
  if (path == "/v1/completions") return Generate(connection, request, false);
  if (path == "/_ctl") return Control(connection, query);
  if (path == "/_stats") return Stats(connection);
  if (path == "/_reset") {
    const uint64_t active = counters_.active;
    counters_ = Counters();
    counters_.active = counters_.max_active = active;
    paths_.clear();
    return connection.Reply(200, "text/plain", "forgotten\n");
  }
  ++paths_[std::string(request.head.method()) + " " + std::string(path)];
  if (path == "/health") return connection.Reply(options_.healthy ? 200 : 503, "text/plain", "");
  if (path == "/version") return connection.Reply(200, "application/json", R"({"version":"0.11.0"})");
  if (path == "/metrics") return connection.Reply(200, "text/plain; version=0.0.4", Metrics());
  if (path == "/v1/models") return connection.Reply(200, "application/json", ModelsBody({options_.model}, 32'768));
  connection.Reply(404, "application/json", ErrorBody("not_found", "no such path", 404));
}

bool FakeEngine::Misbehave(HttpConnection& connection, const HttpServer::Request& request) {
  if (!options_.poison.empty() && request.body.find(options_.poison) != std::string_view::npos) raise(SIGKILL);
  if (options_.mode == "close") {
    connection.Break(true);
    return true;
  }
  const std::string type = options_.mode == "429"   ? "rate_limit_error"
                           : options_.mode == "400" ? "invalid_request_error"
                           : options_.mode == "503" ? "overloaded"
                           : options_.mode == "500" ? "internal_error"
                                                    : "";
  if (type.empty()) return false;
  connection.Reply(std::stoi(options_.mode), "application/json",
                   ErrorBody(type, "fake engine " + options_.mode, std::stoi(options_.mode)),
                   options_.mode == "429" ? "Retry-After: 1\r\n" : "");
  return true;
}

void FakeEngine::Generate(HttpConnection& connection, const HttpServer::Request& request, bool chat) {
  if (request.head.method() != "POST")
    return connection.Reply(405, "application/json", ErrorBody("invalid_request_error", "method not allowed", 405));
  ++counters_.received;
  counters_.bytes_in += request.body.size();
  last_head_.assign(request.head.first_line).append("\r\n").append(request.head.fields);
  last_body_.assign(request.body.substr(0, 512));
  if (Misbehave(connection, request)) return;
  auto parsed = ParseEngineCall(request.body, chat, options_.tokens, false);
  if (!parsed.ok())
    return connection.Reply(400, "application/json", ErrorBody("invalid_request_error", parsed.error().message, 400));
  if (parsed->model != options_.model)
    return connection.Reply(404, "application/json",
                            ErrorBody("NotFoundError", "The model `" + parsed->model + "` does not exist.", 404));
  AnswerFake(*this, connection, std::move(parsed).value(), request.received);
}

void FakeEngine::Control(HttpConnection& connection, std::string_view query) {
  FakeEngineOptions changed = options_;
  while (!query.empty()) {
    const std::string_view one = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), one.size() + 1));
    const size_t equals = std::min(one.find('='), one.size());
    const Status set = SetFakeEngineOption(changed, one.substr(0, equals), one.substr(std::min(equals + 1, one.size())));
    if (!set.ok()) return connection.Reply(400, "text/plain", set.error().message + "\n");
  }
  options_ = std::move(changed);
  connection.Reply(200, "text/plain", "set\n");
}

void FakeEngine::Stats(HttpConnection& connection) {
  boost::json::object paths;
  for (const auto& [path, count] : paths_) paths[path] = count;
  const Counters& c = counters_;
  connection.Reply(200, "application/json",
                   boost::json::serialize(boost::json::object{{"name", options_.name},
                                                              {"received", c.received},
                                                              {"completed", c.completed},
                                                              {"cancelled", c.cancelled},
                                                              {"active", c.active},
                                                              {"max_active", c.max_active},
                                                              {"bytes_in", c.bytes_in},
                                                              {"bytes_out", c.bytes_out},
                                                              {"last_cancel_ns", c.last_cancel.nanos()},
                                                              {"connections", server_.connections()},
                                                              {"paths", paths},
                                                              {"last_head", last_head_},
                                                              {"last_body", last_body_}}) +
                       "\n");
}

std::string FakeEngine::Metrics() const {
  std::string out = VllmGauge("num_requests_running", options_.model, static_cast<double>(counters_.active));
  out += VllmGauge("num_requests_waiting", options_.model, 0);
  out += VllmGauge("kv_cache_usage_perc", options_.model, 0);
  out += "# TYPE vllm:request_success_total counter\nvllm:request_success_total{engine=\"0\",model_name=\"" + options_.model +
         "\"} " + std::to_string(counters_.completed) + "\n";
  return out;
}

}  // namespace foretoken
