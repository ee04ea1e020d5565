// `foretoken gateway`: the gateway alone, in front of OpenAI-compatible servers that run already.
#include <pthread.h>
#include <CLI/CLI.hpp>
#include <csignal>
#include <iostream>
#include <memory>
#include <string>

#include "integration/cli/commands.h"
#include "integration/cli/dashboard_option.h"
#include "integration/cli/log_option.h"
#include "integration/gateway/gateway_server.h"

namespace foretoken {
namespace {

struct Arguments {
  GatewayConfig config;
  uint16_t prometheus_port = 29000;
  double request_timeout = 1800, queue_timeout = 60, dead_after = 2, drain_timeout = 30;
  double header_timeout = 10, body_timeout = 10, idle_timeout = 75, send_timeout = 60;
  double dns_every = 5;
  double slo_ttft_ms = 1000, slo_tpot_ms = 50;
  LogChoice log;
  std::string topology, dashboard;
};

int Serve(Arguments& a) {
  GatewayConfig& c = a.config;
  if (c.worker_urls.empty() && c.workers_file.empty() && c.workers_dns.empty()) {
    std::cerr << "foretoken gateway: no workers: name them by --worker-urls, --workers-file or --workers-dns\n";
    return kExitUsage;
  }
  c.prometheus_port = a.prometheus_port;
  c.log = MakeLog(a.log, "foretoken gateway");
  c.dns_every = Duration::FromSeconds(a.dns_every);
  c.request_timeout = Duration::FromSeconds(a.request_timeout);
  c.queue_timeout = Duration::FromSeconds(a.queue_timeout);
  c.dead_after = Duration::FromSeconds(a.dead_after);
  c.drain_timeout = Duration::FromSeconds(a.drain_timeout);
  c.header_timeout = Duration::FromSeconds(a.header_timeout);
  c.body_timeout = Duration::FromSeconds(a.body_timeout);
  c.idle_timeout = Duration::FromSeconds(a.idle_timeout);
  c.send_timeout = Duration::FromSeconds(a.send_timeout);
  c.slo_ttft = Duration::FromSeconds(a.slo_ttft_ms * 1e-3);
  c.slo_tpot = Duration::FromSeconds(a.slo_tpot_ms * 1e-3);
  // Signals are waited for here and nowhere else: blocked before the gateway's thread begins.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  c.board = std::make_shared<ObservationBoard>();  // metrics need it, page or no page
  GatewayServer server(c);
  if (const Status started = server.Start(); !started.ok()) {
    std::cerr << "foretoken gateway: " << started.error().message << "\n";
    return kExitUsage;
  }
  const std::string host = c.host.find(':') == std::string::npos ? c.host : "[" + c.host + "]";
  std::cout << "foretoken gateway: listening on " << (c.tls_cert.empty() ? "http://" : "https://") << host << ":"
            << server.port() << std::endl;
  if (server.sync_port() != 0) std::cout << "foretoken gateway: sync streams on port " << server.sync_port() << std::endl;
  std::unique_ptr<Dashboard> dashboard;
  if (!a.dashboard.empty() && a.dashboard != "none") {
    auto made = StartDashboard(a.dashboard, {{"gateway", "Gateway", c.board, nullptr}});
    if (!made.ok()) {
      std::cerr << "foretoken gateway: " << made.error().message << "\n";
      return kExitUsage;
    }
    dashboard = std::move(made).value();
    std::cout << "foretoken dashboard: " << dashboard->url() << std::endl;
  }
  int signal = 0;
  sigwait(&signals, &signal);
  c.log->Write(LogLevel::kInfo, "draining", "draining");
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);  // a second signal ends it at once
  const bool drained = server.Stop();
  if (const std::string shadow = server.ShadowReport(); !shadow.empty()) c.log->Write(LogLevel::kInfo, "shadow", shadow);
  if (!drained) c.log->Write(LogLevel::kError, "not_drained", "not all requests had ended when the time to drain was over");
  return drained ? kExitOk : kExitFailed;
}

void AddLimits(CLI::App& c, Arguments& a) {
  c.add_option("--request-timeout-secs", a.request_timeout, "Longest time of one request")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_option("--max-payload-size", a.config.max_payload_bytes, "Longest body of a request, bytes")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_option("--max-concurrent-requests", a.config.max_concurrent_requests, "Requests under way at once; 0: no limit")
      ->capture_default_str();
  c.add_option("--queue-size", a.config.queue_size, "Requests that may wait for that limit")->capture_default_str();
  c.add_option("--queue-timeout-secs", a.queue_timeout, "Longest wait for that limit")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_option("--max-connections", a.config.max_connections, "Client connections at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_option("--max-header-size", a.config.max_header_bytes, "Longest head of a request, bytes")
      ->check(CLI::Range(1024, 1 << 20))
      ->capture_default_str();
  c.add_option("--header-timeout-secs", a.header_timeout, "In which a request's head must come")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_option("--body-timeout-secs", a.body_timeout, "In which 512 bytes of a body must come, again and again")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_option("--idle-timeout-secs", a.idle_timeout, "Of a kept-alive client connection")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_option("--send-timeout-secs", a.send_timeout, "In which a client must take something of its answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_option("--dead-after", a.dead_after, "Seconds of silence after which an engine with work is out")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c.add_option("--drain-timeout-secs", a.drain_timeout, "That requests under way may take after SIGTERM")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
}

}  // namespace

void AddGatewayCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("gateway", "The gateway in front of OpenAI-compatible servers that run already");
  c->add_option("--worker-urls", a->config.worker_urls,
                "Their addresses: http://host:port, with @RANK for a data-parallel rank");
  c->add_option("--workers-file", a->config.workers_file, "A file of such addresses, one a line, followed as it changes");
  c->add_option("--workers-dns", a->config.workers_dns,
                "http://NAME:PORT: every address that DNS gives for NAME is a worker (a headless service)");
  c->add_option("--dns-interval-secs", a->dns_every, "How often NAME is resolved anew")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  c->add_option("--host", a->config.host, "Address to listen on")->capture_default_str();
  c->add_option("--port", a->config.port, "Port; 0: the kernel's choice")->capture_default_str();
  c->add_option("--sync-listen", a->config.sync_listen,
                "Where the workers' plugins (foretoken_vllm) stream their progress: tcp:HOST:PORT or unix:PATH");
  c->add_option("--policy", a->config.policy, "Routing policy (foretoken simulate --help names them)")->capture_default_str();
  c->add_option("--shadow", a->config.shadow, "A second policy that predicts beside it, sends nothing and is compared");
  AddLogOptions(*c, a->log);
  c->add_option("--prometheus-port", a->prometheus_port, "Port of /metrics; 0: on the main port")->capture_default_str();
  c->add_option("--dashboard", a->dashboard, "Where the dashboard listens: HOST:PORT, or a port on 127.0.0.1 (default: none)");
  c->add_option("--admin-port", a->config.admin_port, "Port where workers are added and removed; 0: the main port")
      ->capture_default_str();
  c->add_option("--api-key", a->config.api_keys, "Key that clients must send; may be repeated");
  c->add_option("--request-id-headers", a->config.request_id_headers, "Headers besides X-Request-Id that name a request");
  c->add_option("--slo-ttft-ms", a->slo_ttft_ms, "Target for the first token")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c->add_option("--slo-tpot-ms", a->slo_tpot_ms, "Target per token after it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c->add_option("--shed-above", a->config.shed_above, "Refuse when every engine's P(SLO violation) exceeds this; 0: never")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  c->add_flag("--decision-headers", a->config.decision_headers,
              "Say in every answer which engine it was and what was predicted");
  c->add_option("--tls-cert-path", a->config.tls_cert, "PEM certificate chain: serve HTTPS");
  c->add_option("--tls-key-path", a->config.tls_key, "Its PEM key");
  AddLimits(*c, *a);
  c->footer("Example: foretoken gateway --worker-urls http://127.0.0.1:8001 http://127.0.0.1:8002 --policy auto");
  c->callback([a, &exit_code] { exit_code = Serve(*a); });
}

}  // namespace foretoken
