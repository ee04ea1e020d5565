// `foretoken bench watch`: what it costs a running system to be watched: decisions a second and their latency with nobody watching, and
// with 0, 1 and 20 open pages and a scrape a second, in turns.
#include <sys/socket.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/json.hpp>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "integration/bench/decide_bench.h"
#include "integration/bench/engine_bench.h"
#include "integration/cli/bench_commands.h"
#include "integration/cli/commands.h"
#include "integration/dashboard/dashboard.h"
#include "integration/http/http_fetch.h"
#include "integration/observe/observation_board.h"
#include "runtime/perf/step_time_law.h"

namespace foretoken {
namespace {

namespace asio = boost::asio;

constexpr int kNobody = -1;  // no journal, no observer, no dashboard

struct Arguments {
  std::vector<int> pages = {0, 1, 20};
  int32_t candidates = 8;
  int32_t in_flight = 8;
  int rounds = 5;
  double seconds = 2;
  bool json = false;
};

// Whoever reads the dashboard: pages that take all that comes, and one that scrapes every second. They end with it.
class Watchers {
 public:
  Watchers(uint16_t port, int pages) : port_(port) {
    for (int k = 0; k < pages; ++k) {
      auto page = std::make_unique<asio::ip::tcp::socket>(io_);
      boost::system::error_code code;
      page->connect({asio::ip::address_v4::loopback(), port}, code);
      asio::write(*page, asio::buffer(std::string("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")), code);
      threads_.emplace_back([this, socket = page.get()] { Read(*socket); });
      pages_.push_back(std::move(page));
    }
    threads_.emplace_back([this] { Scrape(); });
  }
  ~Watchers() {
    over_ = true;
    for (const auto& page : pages_) shutdown(page->native_handle(), SHUT_RDWR);  // ends its read
    for (std::thread& t : threads_) t.join();
  }
  uint64_t bytes() const { return bytes_; }

 private:
  void Read(asio::ip::tcp::socket& page) {
    std::vector<char> buffer(1 << 18);
    boost::system::error_code code;
    while (!code && !over_) bytes_ += page.read_some(asio::buffer(buffer), code);
  }
  void Scrape() {
    for (int tick = 0; !over_; ++tick) {
      if (tick % 10 == 0) static_cast<void>(HttpFetch("127.0.0.1", port_, "/status.json", Duration::Seconds(1)));
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

  const uint16_t port_;
  asio::io_context io_;
  std::atomic<bool> over_{false};
  std::atomic<uint64_t> bytes_{0};
  std::vector<std::unique_ptr<asio::ip::tcp::socket>> pages_;
  std::vector<std::thread> threads_;
};

// The measurements of one number of pages.
struct Line {
  int pages = kNobody;
  std::vector<double> rate, p50, p99;
  std::vector<double> page_mb_s;
};

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

Result<DecideBenchRow> Measure(const Arguments& a, Line& line) {
  StepTimeModel model;  // an H100 with an 8B model (configs/topologies/small.yaml)
  model.law = std::make_shared<AffineStepTime>(AffineStepTime::Coefficients{5.85e6, 19.5e3, 13.8e3, 42});
  model.host_overhead = Duration::Millis(1);
  DecideBenchOptions o;
  o.candidates = {a.candidates};
  o.in_flight = {a.in_flight};
  o.hosting = {"actor"};
  o.seconds = a.seconds;
  std::unique_ptr<Dashboard> dashboard;
  std::unique_ptr<Watchers> watchers;
  const auto begun = std::chrono::steady_clock::now();
  if (line.pages != kNobody) {
    o.board = std::make_shared<ObservationBoard>();
    auto started = Dashboard::Start({{}, {{"bench", "Bench", o.board, nullptr}}, {}});
    if (!started.ok()) return started.error();
    dashboard = std::move(started).value();
    const std::string url = dashboard->url();
    uint16_t port = 0;
    std::from_chars(url.data() + url.rfind(':') + 1, url.data() + url.size(), port);
    watchers = std::make_unique<Watchers>(port, line.pages);
  }
  auto rows = RunDecideBench(model, o);
  if (!rows.ok()) return rows.error();
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  if (watchers) line.page_mb_s.push_back(static_cast<double>(watchers->bytes()) / 1e6 / took);
  return rows->front();
}

int Run(const Arguments& a) {
  std::vector<Line> lines(1);
  for (const int pages : a.pages) lines.push_back({pages, {}, {}, {}, {}});
  for (int round = 0; round < a.rounds; ++round)
    for (Line& line : lines) {
      const auto row = Measure(a, line);
      if (!row.ok()) {
        std::cerr << "foretoken bench watch: " << row.error().message << "\n";
        return kExitUsage;
      }
      line.rate.push_back(row->decisions_per_second);
      line.p50.push_back(row->p50_us);
      line.p99.push_back(row->p99_us);
    }
  boost::json::array out;
  if (!a.json)
    std::printf(
        "%s; %d candidates, %d in flight; medians of %d rounds of %.3g s, in turns; a scrape a second\n%10s %13s %9s %9s %9s "
        "%9s %10s\n",
        MachineName().c_str(), a.candidates, a.in_flight, a.rounds, a.seconds, "pages", "decisions/s", "to none", "p50 us",
        "p99 us", "to none", "MB/s read");
  const double rate = Median(lines[0].rate), p99 = Median(lines[0].p99);
  for (const Line& line : lines) {
    const double r = Median(line.rate), p = Median(line.p99);
    if (!a.json) {
      std::printf("%10s %13.0f %+8.1f%% %9.1f %9.1f %+8.1f%% %10.2f\n",
                  line.pages == kNobody ? "none" : std::to_string(line.pages).c_str(), r, 100 * (r / rate - 1),
                  Median(line.p50), p, 100 * (p / p99 - 1), Median(line.page_mb_s));
      continue;
    }
    boost::json::object row{{"watched", line.pages != kNobody}, {"decisions_per_second", r},
                            {"p50_us", Median(line.p50)},       {"p99_us", p},
                            {"rate_to_none", r / rate},         {"p99_to_none", p / p99}};
    if (line.pages != kNobody) row["pages"] = line.pages;
    row["rates"] = boost::json::value_from(line.rate);
    row["p99s_us"] = boost::json::value_from(line.p99);
    out.push_back(std::move(row));
  }
  if (a.json) std::cout << boost::json::object{{"machine", MachineName()}, {"rounds", a.rounds}, {"rows", out}} << "\n";
  return kExitOk;
}

}  // namespace

void AddBenchWatchCommand(CLI::App& bench, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c =
      bench.add_subcommand("watch", "What being watched costs: decisions with 0, 1 and 20 open pages and a scrape a second");
  c->add_option("--pages", a->pages, "Open pages, a row each; a row with nobody comes first")->delimiter(',');
  c->add_option("--candidates", a->candidates, "Instances")->check(CLI::PositiveNumber);
  c->add_option("--in-flight", a->in_flight, "Decisions kept open")->check(CLI::PositiveNumber);
  c->add_option("--rounds", a->rounds, "Turns; figures are medians of them")->check(CLI::PositiveNumber);
  c->add_option("--seconds", a->seconds, "Measured time of a row in a round")->check(CLI::PositiveNumber);
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer("Example: foretoken bench watch --pages 0,1,20 --rounds 7");
  c->callback([a, &exit_code] { exit_code = Run(*a); });
}

}  // namespace foretoken
