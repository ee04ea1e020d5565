#include "integration/load/gateway_peers.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "integration/http/event_loop.h"
#include "integration/http/http_fetch.h"

namespace foretoken {
namespace {

constexpr char kHost[] = "127.0.0.1";

std::string AddressOf(const LoadTarget& t) { return t.host + ":" + std::to_string(t.port); }

// The program in PATH or where Debian puts daemons; empty: none.
std::string Find(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(std::string(path == nullptr ? "" : path) + ":/usr/sbin:/usr/local/sbin");
  for (std::string folder; std::getline(folders, folder, ':');)
    if (const std::string full = folder + "/" + program; access(full.c_str(), X_OK) == 0) return full;
  return {};
}

std::string NginxConfig(const std::vector<LoadTarget>& engines, uint16_t port, const std::string& folder) {
  std::string servers;
  for (const LoadTarget& e : engines) servers += "    server " + AddressOf(e) + ";\n";
  return "daemon off;\nerror_log stderr crit;\npid " + folder + "/nginx.pid;\nworker_processes auto;\n" +
         "events { worker_connections 8192; }\nhttp {\n  access_log off;\n  client_body_temp_path " + folder +
         ";\n  proxy_temp_path " + folder + ";\n  fastcgi_temp_path " + folder + ";\n  uwsgi_temp_path " + folder +
         ";\n  scgi_temp_path " + folder + ";\n  upstream engines {\n    least_conn;\n" + servers +
         "    keepalive 1024;\n  }\n  server {\n    listen " + kHost + ":" + std::to_string(port) +
         ";\n    keepalive_requests 10000000;\n    location / {\n      proxy_pass http://engines;\n" +
         "      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_buffering off;\n    }\n  }\n}\n";
}

std::string HaproxyConfig(const std::vector<LoadTarget>& engines, uint16_t port) {
  std::string servers;
  for (const LoadTarget& e : engines) servers += "  server s" + std::to_string(e.port) + " " + AddressOf(e) + "\n";
  return "global\n  maxconn 8192\ndefaults\n  mode http\n  option http-no-delay\n  timeout connect 2s\n  timeout client 60s\n"
         "  timeout server 60s\nfrontend clients\n  bind " +
         std::string(kHost) + ":" + std::to_string(port) +
         "\n  default_backend engines\nbackend engines\n  balance roundrobin\n" + "  http-reuse always\n" + servers;
}

std::vector<std::string> RouterArguments(const std::string& program, bool launch, const std::vector<LoadTarget>& engines,
                                         uint16_t port, uint16_t metrics_port) {
  std::vector<std::string> a = {program};
  if (launch) a.push_back("launch");
  a.insert(a.end(), {"--host", kHost, "--port", std::to_string(port), "--policy", "round_robin", "--prometheus-port",
                     std::to_string(metrics_port), "--log-level", "error", "--worker-urls"});
  for (const LoadTarget& e : engines) a.push_back("http://" + AddressOf(e));
  return a;
}

Status WaitUntilServing(const RunningPeer& peer, const std::string& model) {
  const Instant until = EventLoop::Now() + Duration::Seconds(30);
  while (EventLoop::Now() < until) {
    if (!peer.process->running()) return Error{"it ended at once"};
    const auto models = HttpFetch(peer.target.host, peer.target.port, "/v1/models", Duration::Seconds(2));
    if (models.ok() && models->status == 200 && models->body.find(model) != std::string::npos) return {};
    usleep(100'000);
  }
  return Error{"it did not serve " + model + " within 30 s"};
}

}  // namespace

std::vector<std::string> PeerNames() { return {"nginx", "haproxy", "vllm-router", "smg"}; }

Result<RunningPeer> StartPeer(const std::string& name, const std::vector<LoadTarget>& engines, const std::string& model,
                              const std::string& folder) {
  const std::string program = Find(name);
  if (program.empty()) return Error{"not installed"};
  const auto port = FreePort(kHost);
  const auto metrics_port = FreePort(kHost);
  if (!port.ok() || !metrics_port.ok()) return Error{"no free port"};
  std::vector<std::string> argv;
  const std::string config = folder + "/" + name + ".conf";
  if (name == "nginx") {
    std::ofstream(config) << NginxConfig(engines, *port, folder);
    argv = {program, "-p", folder, "-c", config};
  } else if (name == "haproxy") {
    std::ofstream(config) << HaproxyConfig(engines, *port);
    argv = {program, "-db", "-q", "-f", config};
  } else {
    argv = RouterArguments(program, name == "smg", engines, *port, *metrics_port);
  }
  auto process = ChildProcess::Start(argv, folder + "/" + name + ".log");
  if (!process.ok()) return process.error();
  RunningPeer peer{name, name == "nginx" ? "least_conn" : "round_robin", std::move(process).value(), {kHost, *port}};
  if (const Status serving = WaitUntilServing(peer, model); !serving.ok()) return serving.error();
  return peer;
}

}  // namespace foretoken
