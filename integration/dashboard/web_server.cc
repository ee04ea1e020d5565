#include "integration/dashboard/web_server.h"

#include <algorithm>
#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <set>
#include <thread>
#include <utility>

#include "integration/http/background_thread.h"

namespace foretoken {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using tcp = asio::ip::tcp;

namespace {

constexpr std::string_view kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

std::chrono::nanoseconds Std(Duration d) { return std::chrono::nanoseconds(d.nanos()); }

std::string_view View(beast::string_view s) { return {s.data(), s.size()}; }

// "localhost:30080" -> "localhost", "[::1]:1" -> "[::1]".
std::string_view HostOnly(std::string_view host) {
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1);
  return host.substr(0, host.find(':'));
}

}  // namespace

class WebServer::Impl {
 public:
  class Session;

  Impl(const Options& options, Handler handler, Tick tick)
      : options_(options), handler_(std::move(handler)), tick_(std::move(tick)) {}

  Status Listen() {
    error_code code;
    const auto address = asio::ip::make_address(options_.host == "localhost" ? "127.0.0.1" : options_.host, code);
    if (code) return Error{"dashboard: \"" + options_.host + "\" must be an IP address, such as 127.0.0.1"};
    loopback_ = address.is_loopback();
    uint16_t port = options_.port;
    Status opened = Open({address, port});
    if (!opened.ok() && options_.any_port && port != 0) opened = Open({address, 0});
    if (!opened.ok()) return opened;
    options_.port = acceptor_.local_endpoint().port();
    return Status();
  }
  void Run() {
    Accept();
    ArmTick();
    thread_ = std::thread([this] {
      BecomeBackground();
      io_.run();
    });
  }
  ~Impl() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }

  void Publish(size_t channel, const std::shared_ptr<const std::string>& frame);
  size_t pages(size_t channel) const;

  Options options_;
  Handler handler_;
  Tick tick_;
  WebCounters counters_;
  bool loopback_ = true;

 private:
  friend class Session;

  Status Open(const tcp::endpoint& at) {
    error_code code, ignored;
    acceptor_.close(ignored);
    acceptor_.open(at.protocol(), code);
    if (!code) acceptor_.set_option(asio::socket_base::reuse_address(true), code);
    if (!code) acceptor_.bind(at, code);
    if (!code) acceptor_.listen(256, code);
    if (!code) return Status();
    return Error{"dashboard: cannot listen on " + options_.host + ":" + std::to_string(at.port()) + ": " + code.message()};
  }
  void Accept();
  void ArmTick();

  std::set<Session*>
      sessions_;  // outlives io_, whose end ends them; every page gets the same, so their order is nobody's concern
  asio::io_context io_{1};
  tcp::acceptor acceptor_{io_};
  asio::steady_timer pause_{io_}, ticker_{io_};
  std::thread thread_;
};

class WebServer::Impl::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Impl& server, tcp::socket socket) : server_(server), stream_(std::move(socket)) { server_.sessions_.insert(this); }
  ~Session() {
    if (channel_) --server_.counters_.pages;
    server_.sessions_.erase(this);
  }

  void Start() {
    error_code ignored;
    stream_.socket().set_option(tcp::no_delay(true), ignored);
    Read(server_.options_.request_within);
  }
  const std::optional<size_t>& channel() const { return channel_; }
  void Offer(const std::shared_ptr<const std::string>& frame) {
    if (!writing_) return Write(frame);
    if (owed_) ++server_.counters_.frames_skipped;
    owed_ = frame;
  }
  void Close() {
    error_code ignored;
    stream_.socket().close(ignored);
  }

 private:
  void Read(Duration within) {
    parser_.emplace();
    parser_->header_limit(server_.options_.head_bytes_most);
    parser_->body_limit(server_.options_.body_bytes_most);
    stream_.expires_after(Std(within));
    http::async_read(stream_, buffer_, *parser_, [self = shared_from_this()](error_code code, size_t) { self->OnRead(code); });
  }
  void OnRead(error_code code) {
    if (!code) return Handle();
    const bool silent = code == http::error::end_of_stream || code == asio::error::operation_aborted ||
                        (code == beast::error::timeout && !parser_->got_some()) || code == asio::error::connection_reset;
    if (silent) return Close();
    ++server_.counters_.refused;
    if (code == beast::error::timeout) return Close();
    const bool large = code == http::error::body_limit || code == http::error::header_limit;
    Answer({large ? 413 : 400, "text/plain", Text(large ? "too large\n" : "malformed request\n"), false, {}}, false, false);
  }
  void Handle() {
    ++server_.counters_.requests;
    const auto& request = parser_->get();
    const bool head = request.method() == http::verb::head;
    const bool keep = request.keep_alive();
    if (std::optional<WebAnswer> refusal = Refuse(request)) {
      ++server_.counters_.refused;
      return Answer(*refusal, keep, head);
    }
    const std::string_view target = View(request.target());
    const size_t mark = std::min(target.find('?'), target.size());
    const WebAnswer answer =
        server_.handler_({request.method() == http::verb::post ? "POST" : "GET", target.substr(0, mark),
                          mark < target.size() ? target.substr(mark + 1) : std::string_view(), request.body()});
    if (!answer.channel || head) return Answer(answer, keep, head);
    if (server_.counters_.pages >= server_.options_.pages_most) {
      ++server_.counters_.refused;
      return Answer({503, "text/plain", Text("too many pages are open\n"), false, {}}, false, false);
    }
    Subscribe(answer);
  }
  // What is refused whatever it asks for.
  std::optional<WebAnswer> Refuse(const http::request<http::string_body>& r) const {
    const auto no = [](int status, const char* why) { return WebAnswer{status, "text/plain", Text(why), false, {}}; };
    if (r.method() != http::verb::get && r.method() != http::verb::head && r.method() != http::verb::post)
      return no(405, "GET or POST\n");
    const std::string_view host = View(r[http::field::host]);
    const std::string_view name = HostOnly(host);
    if (server_.loopback_ && name != "localhost" && name != "127.0.0.1" && name != "[::1]" && name != server_.options_.host)
      return no(421, "this is not the host that you asked for\n");
    if (r.method() != http::verb::post) return std::nullopt;
    const std::string_view origin = View(r[http::field::origin]);
    if (!origin.empty() && origin != "http://" + std::string(host)) return no(403, "from another site\n");
    if (!View(r[http::field::content_type]).starts_with("application/json")) return no(415, "application/json\n");
    return std::nullopt;
  }
  static std::shared_ptr<const std::string> Text(const char* text) { return std::make_shared<std::string>(text); }

  void Answer(const WebAnswer& answer, bool keep, bool head) {
    body_ = answer.body;
    const size_t size = body_ ? body_->size() : 0;
    head_ = Head(answer.status, answer.type, answer.lasts);
    head_ += "Content-Length: " + std::to_string(size) + (keep ? "\r\n\r\n" : "\r\nConnection: close\r\n\r\n");
    stream_.expires_after(Std(server_.options_.page_stalls_after));
    const std::array<asio::const_buffer, 2> out{asio::buffer(head_),
                                                head || !body_ ? asio::const_buffer() : asio::buffer(*body_)};
    asio::async_write(stream_, out, [self = shared_from_this(), keep](error_code code, size_t) {
      self->body_.reset();
      if (code) return self->Close();
      if (keep) return self->Read(self->server_.options_.idle_for);
      self->Linger();
    });
  }
  // Reads on for a moment: closing with unread bytes would reset the connection and take the answer with it.
  void Linger() {
    error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    stream_.expires_after(std::chrono::seconds(2));
    Drain(1 << 20);
  }
  void Drain(size_t left) {
    stream_.async_read_some(asio::buffer(scratch_), [self = shared_from_this(), left](error_code code, size_t n) {
      if (code || n >= left) return self->Close();
      self->Drain(left - n);
    });
  }
  std::string Head(int status, std::string_view type, bool lasts) const {
    std::string out = "HTTP/1.1 " + std::to_string(status) + " ";
    out += View(http::obsolete_reason(static_cast<http::status>(status)));
    out.append("\r\nContent-Type: ")
        .append(type)
        .append(lasts ? "\r\nCache-Control: max-age=60" : "\r\nCache-Control: no-store");
    out.append("\r\nContent-Security-Policy: ").append(kPolicy);
    out += "\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n";
    return out;
  }

  // From here on the connection is a page's stream; it ends with the connection.
  void Subscribe(const WebAnswer& answer) {
    channel_ = answer.channel;
    ++server_.counters_.pages;
    head_ = Head(200, "text/event-stream", false) + "Connection: close\r\n\r\n";
    if (answer.body) head_ += *answer.body;
    Write(std::make_shared<const std::string>(std::move(head_)));
    AwaitItsEnd();
  }
  void AwaitItsEnd() {
    // Its deadlines are those of the writes: one for reads would close a page that is content to listen.
    stream_.socket().async_read_some(asio::buffer(scratch_), [self = shared_from_this()](error_code code, size_t) {
      if (code) return self->Close();
      self->AwaitItsEnd();
    });
  }
  void Write(const std::shared_ptr<const std::string>& frame) {
    writing_ = frame;
    ++server_.counters_.frames_sent;
    stream_.expires_after(Std(server_.options_.page_stalls_after));
    asio::async_write(stream_, asio::buffer(*frame), [self = shared_from_this()](error_code code, size_t) {
      self->writing_.reset();
      if (code) {
        if (code == beast::error::timeout) ++self->server_.counters_.pages_stalled;
        return self->Close();
      }
      self->stream_.expires_never();
      if (self->owed_) self->Write(std::exchange(self->owed_, nullptr));
    });
  }

  Impl& server_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_{16384};
  std::optional<http::request_parser<http::string_body>> parser_;
  std::string head_;
  std::shared_ptr<const std::string> body_;
  std::optional<size_t> channel_;               // of a page
  std::shared_ptr<const std::string> writing_;  // on its way
  std::shared_ptr<const std::string> owed_;     // the latest behind it
  std::array<char, 512> scratch_;
};

void WebServer::Impl::Accept() {
  acceptor_.async_accept([this](const error_code& code, tcp::socket socket) {
    if (code == asio::error::operation_aborted) return;
    if (code) {  // out of descriptors: those open must end first
      pause_.expires_after(std::chrono::milliseconds(20));
      pause_.async_wait([this](const error_code& cancelled) {
        if (!cancelled) Accept();
      });
      return;
    }
    if (sessions_.size() >= options_.connections_most) {
      ++counters_.refused;
    } else {
      std::make_shared<Session>(*this, std::move(socket))->Start();
    }
    Accept();
  });
}

void WebServer::Impl::ArmTick() {
  ticker_.expires_after(Std(options_.tick) * (counters_.pages > 0 ? 1 : 4));
  ticker_.async_wait([this](const error_code& code) {
    if (code) return;
    tick_();
    ArmTick();
  });
}

void WebServer::Impl::Publish(size_t channel, const std::shared_ptr<const std::string>& frame) {
  for (Session* s : sessions_)
    if (s->channel() == channel) s->Offer(frame);
}

size_t WebServer::Impl::pages(size_t channel) const {
  return static_cast<size_t>(
      std::count_if(sessions_.begin(), sessions_.end(), [&](Session* s) { return s->channel() == channel; }));
}

WebServer::WebServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
WebServer::~WebServer() = default;

Result<std::unique_ptr<WebServer>> WebServer::Start(const Options& options, Handler handler, Tick tick) {
  auto impl = std::make_unique<Impl>(options, std::move(handler), std::move(tick));
  const Status listens = impl->Listen();
  if (!listens.ok()) return listens.error();
  std::unique_ptr<WebServer> server(new WebServer(std::move(impl)));
  server->impl_->Run();
  return server;
}

uint16_t WebServer::port() const { return impl_->options_.port; }
const std::string& WebServer::host() const { return impl_->options_.host; }
void WebServer::Publish(size_t channel, std::shared_ptr<const std::string> frame) { impl_->Publish(channel, frame); }
size_t WebServer::pages(size_t channel) const { return impl_->pages(channel); }
const WebCounters& WebServer::counters() const { return impl_->counters_; }

}  // namespace foretoken
