#include "integration/cli/running_system.h"

#include <charconv>
#include <utility>

#include "configs/topology_reader.h"
#include "integration/http/http_fetch.h"

namespace foretoken {

Result<RunningNodes> RunningNodes::Of(const std::string& file, const std::vector<std::string>& set) {
  auto topology = LoadTopology(file, set);
  if (!topology.ok()) return Error{topology.errors().ToString()};
  return Of(std::move(topology).value());
}

Result<RunningNodes> RunningNodes::Of(Topology topology) {
  RunningNodes c;
  c.topology_ = std::move(topology);
  if (c.topology_.nodes.empty())
    return Error{c.topology_.file +
                 ": no `nodes`: there is nothing to connect to (a system in one process is asked by --dashboard)"};
  if (c.topology_.tls) {
    auto tls = TlsContext::Load({c.topology_.tls->certificate, c.topology_.tls->key, c.topology_.tls->ca});
    if (!tls.ok()) return tls.error();
    c.tls_ = std::move(tls).value();
  }
  return c;
}

Result<ControlReply> RunningNodes::Ask(const NodeSpec& node, const std::string& verb,
                                       std::vector<std::string> arguments) const {
  return AskNode({node.listen, node.name, tls_, 3}, ControlRequest{1, verb, std::move(arguments)});
}

Result<ControlReply> RunningNodes::AskAny(const std::string& verb, const std::vector<std::string>& arguments) const {
  std::string last;
  for (const NodeSpec& node : topology_.nodes) {
    auto reply = Ask(node, verb, arguments);
    if (reply.ok()) return reply;
    last = reply.error().message;
  }
  return Error{"no node answers: " + last};
}

Result<std::string> FetchStatus(const std::string& dashboard) {
  std::string at = dashboard;
  if (at.starts_with("http://")) at = at.substr(7);
  at = at.substr(0, at.find('/'));
  const size_t colon = at.rfind(':');
  const std::string host = colon == std::string::npos ? "127.0.0.1" : at.substr(0, colon);
  const std::string port = colon == std::string::npos ? at : at.substr(colon + 1);
  unsigned number = 0;
  const auto r = std::from_chars(port.data(), port.data() + port.size(), number);
  if (r.ec != std::errc() || r.ptr != port.data() + port.size() || number == 0 || number > 65535)
    return Error{"--dashboard " + dashboard + ": must be the dashboard's URL, HOST:PORT or port"};
  const std::string address = host == "localhost" ? "127.0.0.1" : host;
  auto answer = HttpFetch(address, static_cast<uint16_t>(number), "/status.json", Duration::Seconds(5));
  if (!answer.ok()) return Error{"no dashboard answers at " + host + ":" + port + ": " + answer.error().message};
  if (answer->status != 200)
    return Error{"the dashboard at " + host + ":" + port + " answers " + std::to_string(answer->status)};
  return answer->body;
}

}  // namespace foretoken
