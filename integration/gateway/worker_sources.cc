#include "integration/gateway/worker_sources.h"

#include <algorithm>
#include <boost/asio/error.hpp>
#include <boost/asio/ip/address.hpp>
#include <chrono>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "integration/gateway/engine_url.h"
#include "integration/gateway/worker_list.h"

namespace foretoken {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr std::chrono::milliseconds kFileEvery(500);
constexpr size_t kMostBytes = 1 << 20;

Result<std::string> TextOf(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{path + ": cannot be read"};
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) return Error{path + ": cannot be read"};
  if (text.size() > kMostBytes) return Error{path + ": longer than 1 MiB: a URL a line is expected"};
  return text;
}

}  // namespace

WorkerSources::WorkerSources(asio::io_context& io, Gateway& gateway)
    : io_(io), gateway_(gateway), file_timer_(io), dns_timer_(io), resolver_(io) {}

Status WorkerSources::Start() {
  const GatewayConfig& c = gateway_.config();
  if (!c.workers_file.empty()) {
    auto text = TextOf(c.workers_file);
    if (!text.ok()) return text.error();
    seen_ = taken_ = *std::move(text);
    if (Status read = ReadFile(); !read.ok()) return read;
    LookAtFile();
  }
  if (c.workers_dns.empty()) return {};
  const auto url = EngineUrl::Parse(c.workers_dns);
  if (!url.ok()) return url.error();
  if (!url->prefix.empty() || url->rank)
    return Error{c.workers_dns + ": a name and a port only, as in http://vllm-headless:8000"};
  dns_host_ = url->host;
  dns_port_ = url->port;
  error_code code;
  const auto found = resolver_.resolve(dns_host_, dns_port_, code);
  if (code) Complain(c.workers_dns + ": cannot be resolved: " + code.message() + "; asked again", dns_trouble_);
  if (!code)
    if (Status taken = TakeAddresses(found); !taken.ok()) return taken;
  dns_timer_.expires_after(std::chrono::nanoseconds(c.dns_every.nanos()));
  dns_timer_.async_wait([this](const error_code& stopped) {
    if (!stopped) LookUp();
  });
  return {};
}

void WorkerSources::Stop() {
  file_timer_.cancel();
  dns_timer_.cancel();
  resolver_.cancel();
}

// Once for each kind of trouble, and again when it comes back.
void WorkerSources::Complain(const std::string& what, std::string& last) {
  ++gateway_.membership_counters().lists_refused;
  if (std::exchange(last, what) != what) gateway_.Tell(LogLevel::kWarning, "worker_list_refused", what);
}

Status WorkerSources::ReadFile() {
  const auto urls = ReadWorkerList(taken_, gateway_.config().workers_file);
  if (!urls.ok()) return urls.error();
  return gateway_.Follow(*urls, MemberSource::kFile);
}

void WorkerSources::LookAtFile() {
  file_timer_.expires_after(kFileEvery);
  file_timer_.async_wait([this](const error_code& stopped) {
    if (stopped) return;
    auto text = TextOf(gateway_.config().workers_file);
    if (!text.ok()) {
      if (file_trouble_ != text.error().message + "; nothing changes")
        Complain(text.error().message + "; nothing changes", file_trouble_);
    } else if (const bool written = std::exchange(seen_, *text) == *text; written && *text != taken_) {
      taken_ = *std::move(text);
      const Status read = ReadFile();
      read.ok() ? file_trouble_.clear() : Complain(read.error().message + "; nothing changes", file_trouble_);
    }
    LookAtFile();
  });
}

void WorkerSources::LookUp() {
  resolver_.async_resolve(dns_host_, dns_port_, [this](const error_code& code, const auto& found) {
    if (code == asio::error::operation_aborted) return;
    const std::string& name = gateway_.config().workers_dns;
    if (code) {
      Complain(name + ": cannot be resolved: " + code.message() + "; nothing changes", dns_trouble_);
    } else if (const Status taken = TakeAddresses(found); !taken.ok()) {
      Complain(taken.error().message + "; nothing changes", dns_trouble_);
    } else {
      dns_trouble_.clear();
    }
    dns_timer_.expires_after(std::chrono::nanoseconds(gateway_.config().dns_every.nanos()));
    dns_timer_.async_wait([this](const error_code& stopped) {
      if (!stopped) LookUp();
    });
  });
}

Status WorkerSources::TakeAddresses(const asio::ip::tcp::resolver::results_type& found) {
  std::vector<std::string> urls;
  for (const auto& entry : found) {
    const auto address = entry.endpoint().address();
    const std::string host = address.is_v6() ? "[" + address.to_string() + "]" : address.to_string();
    urls.push_back("http://" + host + ":" + dns_port_);
  }
  std::sort(urls.begin(), urls.end());
  urls.erase(std::unique(urls.begin(), urls.end()), urls.end());
  if (urls.empty()) return Error{dns_host_ + ": has no address"};
  return gateway_.Follow(urls, MemberSource::kDns);
}

}  // namespace foretoken
