// WebServer: HTTP/1.1 for people and scrapers on one thread of its own, which gives way to those that serve: small answers, and streams of server-sent events (channels) that
// pages subscribe to. Boost.Beast reads the requests.
//
// Guarantees: a page that stops reading holds back nobody: of a channel it is owed the latest frame only - older ones that it did not take
// are counted and left out - and it is closed when it takes nothing for page_stalls_after. Heads, bodies, connections, pages and times are
// bounded. On a loopback address, requests that name another host are refused (DNS rebinding), and so are changes from another site's page.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "runtime/base/result.h"
#include "runtime/base/units.h"

namespace foretoken {

// Valid during the call of the handler only.
struct WebRequest {
  std::string_view method;  // GET (also for HEAD) or POST
  std::string_view path;    // without the query
  std::string_view query;   // behind the '?'
  std::string_view body;
};

struct WebAnswer {
  int status = 200;
  std::string_view type = "application/json";
  std::shared_ptr<const std::string> body;  // may be null: empty
  bool lasts = false;                       // the same as long as the program runs: may be kept by the browser
  std::optional<size_t> channel;            // instead of a body: the frames of this channel from now on, `body` first
};

struct WebCounters {
  uint64_t requests = 0;
  uint64_t refused = 0;  // malformed, too large, too slow, from another site, or beyond a limit
  uint64_t pages = 0;    // open streams
  uint64_t frames_sent = 0;
  uint64_t frames_skipped = 0;  // not sent since the page had not taken the one before
  uint64_t pages_stalled = 0;   // closed for taking nothing
};

class WebServer {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    uint16_t port = 0;      // 0: the kernel chooses
    bool any_port = false;  // the kernel chooses when `port` is taken
    size_t connections_most = 512;
    size_t pages_most = 128;
    uint32_t head_bytes_most = 8192;
    uint64_t body_bytes_most = 4096;
    Duration request_within = Duration::Seconds(10);
    Duration idle_for = Duration::Seconds(30);
    Duration page_stalls_after = Duration::Seconds(30);
    Duration tick = Duration::Millis(50);  // with pages; four times as long without
  };
  // Both are called on the server's thread.
  using Handler = std::function<WebAnswer(const WebRequest&)>;
  using Tick = std::function<void()>;

  // Serves when it returns. Error: the address is not one, or is taken.
  static Result<std::unique_ptr<WebServer>> Start(const Options& options, Handler handler, Tick tick);
  ~WebServer();

  uint16_t port() const;
  const std::string& host() const;

  // The rest on the server's thread only (in handler and tick).
  void Publish(size_t channel, std::shared_ptr<const std::string> frame);
  size_t pages(size_t channel) const;
  const WebCounters& counters() const;

 private:
  class Impl;
  explicit WebServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace foretoken
