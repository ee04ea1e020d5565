#include "integration/load/load_client.h"

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>

#include "integration/load/load_connection.h"
#include "runtime/base/prng.h"

namespace foretoken {
namespace {

constexpr Duration kSweep = Duration::Millis(50);  // how exactly the time limit is kept

// The connections and what came of their requests.
class Generator {
 public:
  Generator(EventLoop& loop, const LoadOptions& options)
      : loop_(loop), options_(options), prng_(options.seed), idle_(options.targets.size()), sweep_(loop, [this] { Sweep(); }) {
    for (size_t i = 0; i < std::max<size_t>(options.groups, 1); ++i) {
      std::string text;
      while (text.size() < options.prompt_bytes) text += "abcdefghijklmnopqrstuvwxyz    "[prng_.Below(30)];
      groups_.push_back(std::move(text));
    }
    sweep_.Arm(EventLoop::Now() + kSweep);
  }

  void Start(Instant scheduled) {
    const size_t target = started_++ % options_.targets.size();
    Begin(target, Render(target), scheduled);
  }
  void set_on_end(std::function<void(bool ok)> on_end) { on_end_ = std::move(on_end); }
  void set_counting(bool counting) { counting_ = counting; }
  uint64_t in_flight() const { return in_flight_; }
  Prng& prng() { return prng_; }

  LoadResult Take() {
    result_.seconds = first_ == Instant::Max() ? 0 : (last_ - first_).seconds();
    return std::move(result_);
  }

 private:
  std::string Render(size_t target) {
    const std::string& group = groups_[prng_.Below(groups_.size())];
    const std::string text = "\"" + group + " q" + std::to_string(started_) + "\"";
    std::string body = "{\"model\":\"" + options_.model + "\",\"stream\":" + (options_.stream ? "true" : "false") +
                       ",\"max_tokens\":" + std::to_string(options_.tokens);
    body += options_.path.ends_with("chat/completions") ? ",\"messages\":[{\"role\":\"user\",\"content\":" + text + "}]}"
                                                        : ",\"prompt\":" + text + "}";
    const LoadTarget& to = options_.targets[target];
    std::string out = "POST " + options_.path + " HTTP/1.1\r\nHost: " + to.host + ":" + std::to_string(to.port) +
                      "\r\nContent-Type: application/json\r\nAccept: */*\r\n";
    if (!options_.api_key.empty()) out += "Authorization: Bearer " + options_.api_key + "\r\n";
    return out + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }

  void Begin(size_t target, std::string request, Instant scheduled) {
    std::vector<LoadConnection*>& idle = idle_[target];
    while (!idle.empty() && !idle.back()->reusable()) {
      Forget(idle.back());
      idle.pop_back();
    }
    LoadConnection* c = nullptr;
    if (idle.empty()) {
      auto made = std::make_unique<LoadConnection>(loop_, options_.targets[target], target, options_.stream,
                                                   [this](LoadConnection& ended) { OnEnd(ended); });
      c = made.get();
      connections_.emplace(c, std::move(made));
      ++result_.dials;
    } else {
      c = idle.back();
      idle.pop_back();
    }
    result_.peak_in_flight = std::max(result_.peak_in_flight, ++in_flight_);
    c->Send(std::move(request), scheduled);
  }

  void OnEnd(LoadConnection& c) {
    --in_flight_;
    const LoadCall& call = c.call();
    if (call.stale) {  // as every client does: once more on a fresh connection
      const size_t target = c.target_index();
      std::string again = c.request();
      const Instant scheduled = call.scheduled;
      Forget(&c);
      return Begin(target, std::move(again), scheduled);
    }
    const bool ok = call.error.empty();
    if (counting_) Count(call);
    if (c.reusable()) {
      idle_[c.target_index()].push_back(&c);
    } else {
      Forget(&c);
    }
    if (on_end_) on_end_(ok);
  }

  void Count(const LoadCall& call) {
    LoadResult& r = result_;
    ++r.offered;
    if (call.sent != Instant()) first_ = std::min(first_, call.sent);
    last_ = std::max(last_, call.end);
    if (!call.error.empty()) {
      ++r.errors[call.error];
      return;
    }
    ++r.ok;
    if (!call.engine.empty()) ++r.engines[call.engine];
    r.ttft.push_back((call.first - call.sent).nanos());
    r.e2e.push_back((call.end - call.sent).nanos());
    r.late.push_back((call.sent - call.scheduled).nanos());
    if (call.engine_sent != Instant())
      r.transit.push_back((call.first - call.sent).nanos() - (call.engine_sent - call.engine_received).nanos());
    r.chunk_transit.insert(r.chunk_transit.end(), call.chunk_transit.begin(), call.chunk_transit.end());
  }

  void Forget(LoadConnection* c) {
    const auto found = connections_.find(c);
    loop_.Retire(std::move(found->second));
    connections_.erase(found);
  }

  void Sweep() {
    const Instant now = EventLoop::Now();
    std::vector<LoadConnection*> late;
    for (const auto& [c, owned] : connections_)
      if (c->busy() && c->call().scheduled + options_.timeout < now) late.push_back(c);
    for (LoadConnection* c : late) c->GiveUp("timeout");
    sweep_.Arm(now + kSweep);
  }

  EventLoop& loop_;
  const LoadOptions& options_;
  Prng prng_;
  std::vector<std::string> groups_;
  std::vector<std::vector<LoadConnection*>> idle_;  // by target
  std::map<LoadConnection*, std::unique_ptr<LoadConnection>> connections_;
  EventLoop::Timer sweep_;
  std::function<void(bool ok)> on_end_;
  uint64_t started_ = 0;
  uint64_t in_flight_ = 0;
  bool counting_ = true;
  Instant first_ = Instant::Max();
  Instant last_;
  LoadResult result_;
};

// Sends at the given instants and waits for the last end. An ended loop stays usable.
LoadResult RunSchedule(EventLoop& loop, const LoadOptions& options, const std::vector<Duration>& at) {
  Generator generator(loop, options);
  const Instant start = EventLoop::Now() + Duration::Millis(1);
  size_t next = 0;
  EventLoop::Timer arrivals(loop, [&] {
    while (next < at.size() && start + at[next] <= EventLoop::Now()) {
      generator.Start(start + at[next]);
      ++next;
    }
    if (next < at.size()) arrivals.Arm(start + at[next]);
  });
  if (!at.empty()) arrivals.Arm(start + at[0]);
  while (next < at.size() || generator.in_flight() > 0) loop.RunUntil(EventLoop::Now() + Duration::Millis(2));
  return generator.Take();
}

}  // namespace

uint64_t LoadResult::failed() const {
  uint64_t n = 0;
  for (const auto& [what, count] : errors) n += count;
  return n;
}

Result<LoadTarget> ParseTarget(const std::string& url) {
  std::string_view rest = url;
  if (rest.starts_with("http://")) rest.remove_prefix(7);
  while (rest.ends_with('/')) rest.remove_suffix(1);
  const size_t colon = rest.find(':');
  LoadTarget target;
  if (colon != rest.npos) {
    target.host = rest.substr(0, colon) == "localhost" ? "127.0.0.1" : std::string(rest.substr(0, colon));
    const std::string_view port = rest.substr(colon + 1);
    const auto r = std::from_chars(port.data(), port.data() + port.size(), target.port);
    const bool numeric = target.host.find_first_not_of("0123456789.") == std::string::npos;
    if (r.ec == std::errc() && r.ptr == port.data() + port.size() && target.port != 0 && numeric) return target;
  }
  return Error{"\"" + url + "\": a URL here is http://IPV4-ADDRESS:PORT, such as http://127.0.0.1:8000"};
}

int64_t QuantileOf(std::vector<int64_t>& values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(q * static_cast<double>(values.size())))];
}

LoadResult RunOpenLoop(EventLoop& loop, const LoadOptions& options, double rate, Duration lasts) {
  Prng prng = Prng::ForStream(options.seed, 2);
  std::vector<Duration> at;
  for (double t = prng.Exponential(1 / rate); t < lasts.seconds(); t += prng.Exponential(1 / rate))
    at.push_back(Duration::FromSeconds(t));
  return RunSchedule(loop, options, at);
}

LoadResult RunBurst(EventLoop& loop, const LoadOptions& options, size_t streams, Duration ramp) {
  std::vector<Duration> at;
  for (size_t i = 0; i < streams; ++i)
    at.push_back(
        Duration::FromNanos(static_cast<double>(ramp.nanos()) * static_cast<double>(i) / static_cast<double>(streams)));
  return RunSchedule(loop, options, at);
}

LoadResult RunSaturated(EventLoop& loop, const LoadOptions& options, size_t connections, Duration warm_up, Duration lasts) {
  Generator generator(loop, options);
  bool over = false;
  generator.set_counting(false);
  size_t failed = 0;  // begun again after a pause: a server that refuses at once must not make this spin
  EventLoop::Timer again(loop, [&] {
    for (size_t n = std::exchange(failed, 0); n > 0 && !over; --n) generator.Start(EventLoop::Now());
  });
  generator.set_on_end([&](bool ok) {
    if (over) return;
    if (ok) return generator.Start(EventLoop::Now());
    if (failed++ == 0) again.Arm(EventLoop::Now() + Duration::Millis(1));
  });
  for (size_t i = 0; i < connections; ++i) generator.Start(EventLoop::Now());
  loop.RunUntil(EventLoop::Now() + warm_up);
  generator.set_counting(true);
  const Instant begin = EventLoop::Now();
  loop.RunUntil(begin + lasts);
  generator.set_counting(false);
  const double seconds = (EventLoop::Now() - begin).seconds();
  over = true;
  const Instant drain_until = EventLoop::Now() + options.timeout;
  while (generator.in_flight() > 0 && EventLoop::Now() < drain_until) loop.RunUntil(EventLoop::Now() + Duration::Millis(1));
  LoadResult result = generator.Take();
  result.seconds = seconds;
  return result;
}

}  // namespace foretoken
