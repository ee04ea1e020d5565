#include "integration/serve/http_front.h"

#include <algorithm>
#include <fstream>

#include "integration/engines/emulated/emulated_fleet.h"
#include "integration/gateway/gateway_server.h"
#include "integration/serve/instance_kind.h"
#include "runtime/base/prng.h"

namespace foretoken {
namespace {

EmulatedServerOptions ServerOptionsOf(const Topology& topology, const InstanceSpec& spec) {
  const EngineSpec& engine = topology.engines[spec.engine];
  EmulatedServerOptions o;
  o.name = spec.instance.name;
  for (const ModelId m : spec.instance.models) o.models.push_back(topology.models[m.value()]);
  o.engine.config = engine.limits;
  o.engine.step_time = engine.step_time;
  o.engine.noise = {Mix64(topology.seed, spec.instance.id.value()), engine.step_noise};
  return o;
}

// An endpoint that several instances share has data-parallel ranks behind it.
std::string UrlOf(const Topology& topology, const Instance& instance) {
  const auto same = std::count_if(topology.instances.begin(), topology.instances.end(),
                                  [&](const InstanceSpec& s) { return s.instance.endpoint == instance.endpoint; });
  return same > 1 ? instance.endpoint + "@" + std::to_string(instance.dp_rank) : instance.endpoint;
}

}  // namespace

Result<GatewayConfig> GatewayConfigOf(const Topology& topology,
                                      const std::vector<std::pair<std::string, std::string>>& instances) {
  const GatewaySpec spec = topology.gateway.value_or(GatewaySpec());
  GatewayConfig c;
  for (const auto& [name, url] : instances) {
    c.worker_urls.push_back(url);
    c.worker_labels.push_back(name);
  }
  c.workers_file = spec.workers_file;
  c.workers_dns = spec.workers_dns;
  c.dns_every = spec.dns_interval;
  c.host = spec.listen.host;
  c.port = spec.listen.port;
  if (spec.admin) {
    c.admin_host = spec.admin->host;
    c.admin_port = spec.admin->port;
  }
  c.policy = topology.scheduler.policy;
  c.seed = topology.seed;
  c.slo_ttft = topology.slo.ttft;
  c.slo_tpot = topology.slo.tpot;
  c.shed_above = topology.scheduler.shed_above;
  c.dead_after = topology.sync.dead_after;
  c.request_timeout = spec.request_timeout;
  c.max_payload_bytes = static_cast<uint64_t>(spec.max_payload_bytes);
  c.max_concurrent_requests = static_cast<size_t>(spec.max_concurrent_requests);
  c.queue_size = static_cast<size_t>(spec.queue_size);
  c.queue_timeout = spec.queue_timeout;
  c.header_timeout = spec.header_timeout;
  c.idle_timeout = spec.idle_timeout;
  c.request_id_headers = spec.request_id_headers;
  c.decision_headers = true;
  if (spec.api_key_file.empty()) return c;
  std::ifstream keys(spec.api_key_file);
  for (std::string key; std::getline(keys, key);)
    if (!key.empty()) c.api_keys.push_back(key);
  if (c.api_keys.empty()) return Error{spec.api_key_file + ": no API key in it: one a line, such as a long random text"};
  return c;
}

HttpFront::HttpFront() = default;

HttpFront::~HttpFront() = default;

Result<std::unique_ptr<HttpFront>> HttpFront::Start(const HttpFrontOptions& options) {
  const Topology& topology = *options.topology;
  std::unique_ptr<HttpFront> front(new HttpFront);
  std::vector<EmulatedServerOptions> emulated;
  for (const InstanceSpec& s : topology.instances)
    if (topology.engines[s.engine].adapter == EngineAdapter::kEmulated) emulated.push_back(ServerOptionsOf(topology, s));
  auto fleet = EmulatedFleet::Start(std::move(emulated), options.host, options.first_port);
  if (!fleet.ok()) return fleet.error();
  front->fleet_ = std::move(fleet).value();
  size_t next = 0;
  for (const InstanceSpec& s : topology.instances) {
    const bool own = topology.engines[s.engine].adapter == EngineAdapter::kEmulated;
    front->instances_.emplace_back(s.instance.name, own ? front->fleet_->urls()[next++] : UrlOf(topology, s.instance));
  }
  front->model_ = topology.models.front();
  if (!options.gateway) return front;
  auto config = GatewayConfigOf(topology, front->instances_);
  if (!config.ok()) return config.error();
  config->board = options.board;
  config->log = options.log;
  front->MakeWorkersOf(topology, *config);
  front->gateway_ = std::make_unique<GatewayServer>(*config);
  Status started = front->gateway_->Start();
  if (!started.ok() && options.any_port) {
    config->port = 0;
    front->gateway_ = std::make_unique<GatewayServer>(*config);
    started = front->gateway_->Start();
  }
  if (!started.ok()) return started.error();
  front->gateway_url_ = "http://" + config->host + ":" + std::to_string(front->gateway_->port());
  return front;
}

// Instances join at run time as the emulated ones of the topology are. All of it is called on the gateway's thread, which ends first.
void HttpFront::MakeWorkersOf(const Topology& topology, GatewayConfig& config) {
  EmulatedFleet* fleet = fleet_.get();
  config.make_worker = [fleet, topology, made = uint64_t{0}](const std::string& kind) mutable -> Result<std::string> {
    const auto like = InstanceOfKind(topology, kind);
    if (!like.ok()) return like.error();
    EmulatedServerOptions o = ServerOptionsOf(topology, topology.instances[like->value()]);
    o.name += "-more-" + std::to_string(++made);
    o.engine.noise.seed = Mix64(topology.seed, topology.instances.size() + made);
    return fleet->Add(std::move(o));
  };
  config.on_left = [fleet](const std::string& url) { fleet->Remove(url); };
}

std::string HttpFront::Curl() const {
  return "curl -N " + (gateway_url_.empty() ? instances_.front().second : gateway_url_) +
         "/v1/chat/completions -H 'Content-Type: application/json' -d '{\"model\": \"" + model_ +
         "\", \"stream\": true, \"max_tokens\": 32, \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'";
}

bool HttpFront::Stop() {
  const bool drained = gateway_ == nullptr || gateway_->Stop();
  gateway_.reset();
  fleet_.reset();
  return drained;
}

}  // namespace foretoken
