// AskNode: how a command talks to a running node: connects to its listening address, asks one thing, reads the answer. Blocks.
#pragma once

#include <memory>
#include <string>

#include "configs/topology.h"
#include "integration/transport/tls_context.h"
#include "runtime/base/result.h"
#include "runtime/model/messages.h"

namespace foretoken {

struct AskOptions {
  Address address;
  std::string node;                       // its name: checked against its certificate
  std::shared_ptr<const TlsContext> tls;  // null: plain
  int seconds = 5;                        // per network operation
};

// Error: why there is no answer. An answer may say that the node refuses (ControlReply::ok).
Result<ControlReply> AskNode(const AskOptions& options, const ControlRequest& request);

}  // namespace foretoken
