#include "integration/dashboard/dashboard.h"

#include <algorithm>
#include <atomic>
#include <boost/json.hpp>
#include <charconv>
#include <cmath>
#include <utility>

#include "integration/dashboard/page/embedded_dashboard.h"

namespace foretoken {
namespace {

namespace json = boost::json;

std::shared_ptr<const std::string> Shared(std::string text) { return std::make_shared<const std::string>(std::move(text)); }

WebAnswer Complaint(int status, const std::string& message) {
  return {status, "application/json", Shared(json::serialize(json::object{{"error", message}}) + "\n"), false, {}};
}

// The value of `key` in "a=b&c=d", as it stands; names here need no escapes.
std::string_view Parameter(std::string_view query, std::string_view key) {
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view pair = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (pair.size() > key.size() && pair.starts_with(key) && pair[key.size()] == '=') return pair.substr(key.size() + 1);
  }
  return {};
}

// {"instance": "h100-1", "delay": 0.2, "reorder": 0.1, "drop": 0.05, "kill": 10, "heal": true}: seconds and shares.
Result<FaultOrder> ParseOrder(std::string_view text) {
  boost::system::error_code code;
  json::parse_options options;
  options.max_depth = 4;
  const json::value v = json::parse({text.data(), text.size()}, code, {}, options);
  if (code || !v.is_object()) return Error{"the body must be a JSON object"};
  FaultOrder order;
  for (const auto& [key, value] : v.as_object()) {
    const std::string name(key.data(), key.size());
    if (name == "instance" && value.is_string()) {
      order.instance = value.as_string().c_str();
    } else if (name == "heal" && value.is_bool()) {
      order.heal = value.as_bool();
    } else if (value.is_number() && (name == "delay" || name == "kill")) {
      const double s = value.to_number<double>();
      if (!(std::abs(s) < 1e6)) return Error{name + ": out of range"};
      (name == "delay" ? order.delay : order.kill) = Duration::FromSeconds(s);
    } else if (value.is_number() && (name == "reorder" || name == "drop")) {
      (name == "reorder" ? order.reorder : order.drop) = value.to_number<double>();
    } else {
      return Error{"\"" + name.substr(0, 40) + "\": unknown, or not of its kind: instance, delay, reorder, drop, kill, heal"};
    }
  }
  if (order.instance.empty()) return Error{"instance: a name, or \"*\" for all"};
  return order;
}

}  // namespace

class Dashboard::Impl {
 public:
  explicit Impl(Options options) : options_(std::move(options)) {
    for (DashboardSource& s : options_.sources) feeds_.emplace_back(std::move(s));
  }

  Status Start() {
    auto web = WebServer::Start(
        options_.web, [this](const WebRequest& r) { return Handle(r); }, [this] { Tick(); });
    if (!web.ok()) return web.error();
    web_ = std::move(web).value();
    started_.store(true, std::memory_order_release);
    return Status();
  }
  std::string url() const {
    const std::string& host = web_->host();
    const bool v6 = host.find(':') != std::string::npos;
    return "http://" + (v6 ? "[" + host + "]" : host) + ":" + std::to_string(web_->port()) + "/";
  }

 private:
  static WebAnswer Embedded(std::string_view type, std::string_view text) {
    return {200, type, Shared(std::string(text)), true, {}};
  }
  ObservationFeed* FeedOf(const WebRequest& r, size_t* index = nullptr) {
    const std::string_view name = Parameter(r.query, "source");
    for (size_t k = 0; k < feeds_.size(); ++k) {
      if (!name.empty() && feeds_[k].source().name != name) continue;
      if (index != nullptr) *index = k;
      return &feeds_[k];
    }
    return nullptr;
  }
  json::object Watch() const {
    const WebCounters& c = web_->counters();
    return {{"pages", c.pages},
            {"requests", c.requests},
            {"refused", c.refused},
            {"frames_sent", c.frames_sent},
            {"frames_skipped", c.frames_skipped},
            {"pages_stalled", c.pages_stalled}};
  }
  bool Ready() const { return started_.load(std::memory_order_acquire); }

  void Tick() {
    if (!Ready()) return;
    for (size_t k = 0; k < feeds_.size(); ++k) {
      const bool watched = web_->pages(k) > 0;
      if (watched) feeds_[k].source().board->Touch();
      if (feeds_[k].Refresh() && watched) web_->Publish(k, feeds_[k].FrameOf(Watch()));
    }
  }

  WebAnswer Handle(const WebRequest& r) {
    if (!Ready()) return Complaint(503, "starting");
    if (const auto more = options_.routes.find(r.path); more != options_.routes.end()) return more->second(r, web_->counters());
    const bool post = r.method == "POST";
    if (r.path == "/faults") return post ? Faults(r) : Complaint(405, "POST");
    if (post) return Complaint(405, "GET");
    if (r.path == "/") return Embedded("text/html; charset=utf-8", kDashboardPage);
    if (r.path == "/dashboard.css") return Embedded("text/css; charset=utf-8", kDashboardStyle);
    if (r.path == "/dashboard.js") return Embedded("text/javascript; charset=utf-8", kDashboardScript);
    if (r.path == "/chart.js") return Embedded("text/javascript; charset=utf-8", kDashboardChartJs);
    if (r.path == "/sources.json") return Sources();
    size_t index = 0;
    ObservationFeed* feed = FeedOf(r, &index);
    if (feed == nullptr) return Complaint(404, "no such source: /sources.json lists them");
    if (r.path == "/status.json") return StatusOf(*feed);
    if (r.path == "/decision.json") return Decision(*feed, Parameter(r.query, "number"));
    if (r.path == "/events") {
      feed->source().board->Touch();
      return {200, "text/event-stream", Shared(feed->Opening(Watch())), false, index};
    }
    return Complaint(404, "not here: /, /status.json, /sources.json, /decision.json, /events, /faults");
  }
  WebAnswer Sources() const {
    json::array out;
    for (const ObservationFeed& f : feeds_)
      out.push_back(json::object{
          {"name", f.source().name}, {"title", f.source().title}, {"faults_switchable", f.source().faults != nullptr}});
    return {200, "application/json", Shared(json::serialize(out) + "\n"), false, {}};
  }
  WebAnswer StatusOf(ObservationFeed& feed) {
    feed.source().board->Touch();
    const auto text = feed.Text(Watch());
    if (text == nullptr) return Complaint(503, "no observation yet");
    return {200, "application/json", text, false, {}};
  }
  static WebAnswer Decision(const ObservationFeed& feed, std::string_view number) {
    std::string found = feed.Decision(number);
    if (found.empty()) return Complaint(404, "no such decision among the latest");
    return {200, "application/json", Shared(std::move(found)), false, {}};
  }
  WebAnswer Faults(const WebRequest& r) {
    const ObservationFeed* feed = FeedOf(r);
    if (feed == nullptr) return Complaint(404, "no such source: /sources.json lists them");
    if (feed->source().faults == nullptr) return Complaint(403, "no faults can be switched here: its engines are not emulated");
    const auto order = ParseOrder(r.body);
    if (!order.ok()) return Complaint(400, order.error().message);
    const Status done = feed->source().faults->Apply(*order);
    if (!done.ok()) return Complaint(400, done.error().message);
    return {200, "application/json", Shared("{\"ok\":true}\n"), false, {}};
  }

  Options options_;
  std::vector<ObservationFeed> feeds_;
  std::atomic<bool> started_{false};
  std::unique_ptr<WebServer> web_;
};

Dashboard::Dashboard(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Dashboard::~Dashboard() = default;

Result<std::unique_ptr<Dashboard>> Dashboard::Start(Options options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  const Status started = impl->Start();
  if (!started.ok()) return started.error();
  return std::unique_ptr<Dashboard>(new Dashboard(std::move(impl)));
}

std::string Dashboard::url() const { return impl_->url(); }

Result<std::optional<WebServer::Options>> ParseDashboardAddress(const std::string& text) {
  if (text == "none") return std::optional<WebServer::Options>();
  WebServer::Options o;
  const size_t colon = text.rfind(':');
  const std::string port = colon == std::string::npos ? text : text.substr(colon + 1);
  if (colon != std::string::npos) o.host = text.substr(0, colon);
  if (o.host.starts_with('[') && o.host.ends_with(']')) o.host = o.host.substr(1, o.host.size() - 2);
  const auto r = std::from_chars(port.data(), port.data() + port.size(), o.port);
  if (r.ec != std::errc() || r.ptr != port.data() + port.size() || o.host.empty())
    return Error{"--dashboard " + text + ": must be HOST:PORT, a port, or none"};
  return std::optional<WebServer::Options>(std::move(o));
}

}  // namespace foretoken
