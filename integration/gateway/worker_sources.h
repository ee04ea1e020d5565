// WorkerSources: where a gateway's workers are named besides its command line: a file that is looked at every half second, and a DNS name that
// is resolved anew at an interval. What is new there joins, what is missing leaves. A list with something wrong in it changes nothing,
// is complained of once, and counted; so is a name that cannot be resolved, for an outage of DNS must not empty a fleet.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <string>

#include "integration/gateway/gateway.h"
#include "runtime/base/result.h"

namespace foretoken {

class WorkerSources {
 public:
  // The gateway outlives it.
  WorkerSources(boost::asio::io_context& io, Gateway& gateway);

  // Reads both at once, and looks again from then on. Error: what is wrong with the file or the name.
  Status Start();
  void Stop();

 private:
  Status ReadFile();
  void LookAtFile();
  void LookUp();
  Status TakeAddresses(const boost::asio::ip::tcp::resolver::results_type& found);
  void Complain(const std::string& what, std::string& last);

  boost::asio::io_context& io_;
  Gateway& gateway_;
  boost::asio::steady_timer file_timer_, dns_timer_;
  boost::asio::ip::tcp::resolver resolver_;
  std::string taken_;  // the file's text that was taken, or refused, last
  std::string seen_;   // at the last look: a file that is being written is waited for
  std::string file_trouble_, dns_trouble_;
  std::string dns_host_, dns_port_;
};

}  // namespace foretoken
