// Sockets of a NODE: listening on one address, dialling without blocking, and handing both to a CAF broker, plain or under TLS. CAF's own
// ways listen on every interface by default and block in connect(); its TLS reads the certificates anew for every connection.
// What is CAF-internal (gone in CAF 1.0) is in sockets.cc.
#pragma once

#include <caf/allowed_unsafe_message_type.hpp>
#include <caf/io/broker.hpp>
#include <caf/io/connection_handle.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "configs/topology.h"
#include "integration/transport/tls_context.h"
#include "runtime/base/result.h"

namespace foretoken {

// An address as the kernel takes it.
struct Endpoint {
  std::vector<std::byte> bytes;  // a sockaddr
  int family = 0;
};

// Numeric hosts are resolved at once; names ask the system's resolver and may block for seconds. Error: says which host.
Result<Endpoint> ResolveAddress(const Address& address);
bool IsNumeric(const Address& address);

// A connection that a broker now has.
struct OpenedConnection {
  caf::io::connection_handle handle;
  std::shared_ptr<TlsSession> tls;  // null: plain
};

// Sent to the broker when a connection's handshake is complete: from now on it may write.
struct TlsReady {
  caf::io::connection_handle handle;
};

// New connections come as caf::io::new_connection_msg. Under TLS, `on_session` is called just before with the session.
// Error: the address and why not. The port that was given.
Result<uint16_t> ListenOn(caf::io::broker* self, const Address& address, std::shared_ptr<const TlsContext> tls,
                          std::function<void(OpenedConnection)> on_session);
// Begins to connect; that it failed comes as connection_closed_msg.
Result<OpenedConnection> DialTo(caf::io::broker* self, const Endpoint& to, const std::shared_ptr<const TlsContext>& tls,
                                const std::string& peer);

// For commands that are no brokers: connects and blocks, `seconds` at most per operation. The socket, or why not.
Result<int> ConnectBlocking(const Endpoint& to, int seconds);

}  // namespace foretoken

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::TlsReady)
