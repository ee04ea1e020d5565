// `foretoken bench watch`: what it costs a running system to be watched: decisions a second and their latency with nobody watching, and
// with 0, 1 and 20 open pages and a scrape of /metrics a second. In pairs: every round measures each, so that what the machine does meanwhile
// meets all of them, and a figure is the median of the rounds' ratios with the interval that holds it with 95 %.
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
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "integration/bench/decide_bench.h"
#include "integration/bench/engine_bench.h"
#include "integration/cli/bench_commands.h"
#include "integration/cli/commands.h"
#include "integration/cli/dashboard_option.h"
#include "integration/http/background_thread.h"
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
  int rounds = 100;
  double seconds = 0.4;
  bool json = false;
};

// Whoever reads the dashboard: pages that take all that comes, and a Prometheus that scrapes every second. They end with it. They stand for
// other machines, so they must not take this one's processors from what is measured: as nice as can be.
class Watchers {
 public:
  Watchers(uint16_t port, int pages) : port_(port) {
    for (int k = 0; k < pages; ++k) {
      auto page = std::make_unique<asio::ip::tcp::socket>(io_);
      boost::system::error_code code;
      page->connect({asio::ip::address_v4::loopback(), port}, code);
      asio::write(*page, asio::buffer(std::string("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")), code);
      threads_.emplace_back([this, socket = page.get()] {
        BecomeBackground(kNicest);
        Read(*socket);
      });
      pages_.push_back(std::move(page));
    }
    threads_.emplace_back([this] {
      BecomeBackground(kNicest);
      Scrape();
    });
  }
  ~Watchers() {
    over_ = true;
    for (const auto& page : pages_) shutdown(page->native_handle(), SHUT_RDWR);  // ends its read
    for (std::thread& t : threads_) t.join();
  }
  uint64_t bytes() const { return bytes_; }
  uint64_t scraped() const { return scraped_; }

 private:
  static constexpr int kNicest = 19;

  void Read(asio::ip::tcp::socket& page) {
    std::vector<char> buffer(1 << 18);
    boost::system::error_code code;
    while (!code && !over_) bytes_ += page.read_some(asio::buffer(buffer), code);
  }
  void Scrape() {
    for (int tick = 1; !over_; ++tick) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      if (tick % 10 != 2) continue;  // the first one after .2 s, when there is something to scrape
      const auto got = HttpFetch("127.0.0.1", port_, "/metrics", Duration::Seconds(1));
      if (got.ok() && got->body.find("foretoken:decisions_total") != std::string::npos) ++scraped_;
    }
  }

  const uint16_t port_;
  asio::io_context io_;
  std::atomic<bool> over_{false};
  std::atomic<uint64_t> bytes_{0}, scraped_{0};
  std::vector<std::unique_ptr<asio::ip::tcp::socket>> pages_;
  std::vector<std::thread> threads_;
};

// The measurements of one number of pages.
struct Line {
  int pages = kNobody;
  std::vector<double> rate, p50, p99;
  std::vector<double> page_mb_s;
  uint64_t scraped = 0;
};

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.empty() ? 0 : v[v.size() / 2];
}

// Of the rounds' ratios to nobody watching. The interval is that between two of the sorted ratios: as many of n draws as a binomial
// distribution of n and a half leaves outside with 2.5 % lie beyond the median on either side.
struct Ratio {
  double median = 1, low = 1, high = 1;
};

Ratio RatioOf(const std::vector<double>& watched, const std::vector<double>& none) {
  std::vector<double> r;
  for (size_t k = 0; k < watched.size(); ++k) r.push_back(watched[k] / none[k]);
  std::sort(r.begin(), r.end());
  const double n = static_cast<double>(r.size());
  size_t outside = 0;
  double probability = std::pow(0.5, n), sum = probability;
  for (double k = 1; sum <= 0.025 && k < n; ++k) {
    ++outside;
    probability *= (n - k + 1) / k;
    sum += probability;
  }
  if (outside > 0) --outside;
  return {Median(r), r[outside], r[r.size() - 1 - outside]};
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
  o.floor = false;
  std::unique_ptr<Dashboard> dashboard;
  std::unique_ptr<Watchers> watchers;
  const auto begun = std::chrono::steady_clock::now();
  if (line.pages != kNobody) {
    o.board = std::make_shared<ObservationBoard>();
    auto started = StartDashboard("127.0.0.1:0", {{"bench", "Bench", o.board, nullptr}});
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
  if (watchers) {
    line.page_mb_s.push_back(static_cast<double>(watchers->bytes()) / 1e6 / took);
    line.scraped += watchers->scraped();
  }
  return rows->front();
}

Status MeasureAll(const Arguments& a, std::vector<Line>& lines) {
  std::vector<size_t> order(lines.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (int round = 0; round < a.rounds; ++round) {
    for (const size_t k : order) {
      Line& line = lines[k];
      const auto row = Measure(a, line);
      if (!row.ok()) return row.error();
      line.rate.push_back(row->decisions_per_second);
      line.p50.push_back(row->p50_us);
      line.p99.push_back(row->p99_us);
    }
    std::rotate(order.begin(), order.begin() + 1, order.end());  // nobody is always the first
  }
  return Status();
}

void Print(const Arguments& a, const std::vector<Line>& lines) {
  std::printf(
      "%s; %d candidates, %d in flight; %d rounds of %.3g s in turns, a scrape of /metrics a second\n"
      "medians; to none: median of the rounds' ratios, and the interval that holds it with 95 %%\n"
      "%6s %12s %24s %8s %8s %24s %7s %8s\n",
      MachineName().c_str(), a.candidates, a.in_flight, a.rounds, a.seconds, "pages", "decisions/s", "to none", "p50 us",
      "p99 us", "to none", "scrapes", "MB/s");
  const auto percent = [](const Ratio& r) {
    char text[64];
    std::snprintf(text, sizeof text, "%+.1f %% [%+.1f, %+.1f]", 100 * (r.median - 1), 100 * (r.low - 1), 100 * (r.high - 1));
    return std::string(text);
  };
  for (const Line& line : lines) {
    const bool none = line.pages == kNobody;
    std::printf("%6s %12.0f %24s %8.1f %8.1f %24s %7llu %8.2f\n", none ? "none" : std::to_string(line.pages).c_str(),
                Median(line.rate), none ? "" : percent(RatioOf(line.rate, lines[0].rate)).c_str(), Median(line.p50),
                Median(line.p99), none ? "" : percent(RatioOf(line.p99, lines[0].p99)).c_str(),
                static_cast<unsigned long long>(line.scraped), Median(line.page_mb_s));
  }
}

void PrintJson(const Arguments& a, const std::vector<Line>& lines) {
  boost::json::array out;
  const auto ratio = [](const Ratio& r) { return boost::json::object{{"median", r.median}, {"low", r.low}, {"high", r.high}}; };
  for (const Line& line : lines) {
    boost::json::object row{{"watched", line.pages != kNobody},
                            {"decisions_per_second", Median(line.rate)},
                            {"p50_us", Median(line.p50)},
                            {"p99_us", Median(line.p99)},
                            {"rate_to_none", ratio(RatioOf(line.rate, lines[0].rate))},
                            {"p99_to_none", ratio(RatioOf(line.p99, lines[0].p99))},
                            {"scrapes", line.scraped}};
    if (line.pages != kNobody) row["pages"] = line.pages;
    row["rates"] = boost::json::value_from(line.rate);
    row["p99s_us"] = boost::json::value_from(line.p99);
    out.push_back(std::move(row));
  }
  std::cout << boost::json::object{{"machine", MachineName()}, {"rounds", a.rounds}, {"seconds", a.seconds}, {"rows", out}}
            << "\n";
}

int Run(const Arguments& a) {
  std::vector<Line> lines(1);
  for (const int pages : a.pages) lines.push_back({pages, {}, {}, {}, {}, 0});
  if (const Status measured = MeasureAll(a, lines); !measured.ok()) {
    std::cerr << "foretoken bench watch: " << measured.error().message << "\n";
    return kExitUsage;
  }
  a.json ? PrintJson(a, lines) : Print(a, lines);
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
  c->add_option("--rounds", a->rounds, "Turns of each; figures are medians of them")->check(CLI::PositiveNumber);
  c->add_option("--seconds", a->seconds, "Measured time of a row in a round")->check(CLI::PositiveNumber);
  c->add_flag("--json", a->json, "One JSON object on standard output");
  c->footer("Example: foretoken bench watch --pages 0,1,20 --rounds 100");
  c->callback([a, &exit_code] { exit_code = Run(*a); });
}

}  // namespace foretoken
