// ClosedLoopUsers: when requests of a closed loop come. Each user works through conversations one after the other, a conversation
// being the requests of one session in order (a request without a session is one by itself); a request comes after its user's
// last one has ended and the user has thought. Thinking times are drawn per request, so they are the same under every policy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <queue>
#include <vector>

#include "runtime/base/prng.h"
#include "runtime/base/units.h"
#include "runtime/workload/trace.h"

namespace foretoken {

class ClosedLoopUsers {
 public:
  // `trace` has a closed loop; its requests must stay where they are.
  ClosedLoopUsers(const Trace& trace, uint64_t seed) : loop_(*trace.closed_loop), seed_(seed), user_of_(trace.requests.size()) {
    std::map<uint64_t, size_t> by_session;
    for (size_t k = 0; k < trace.requests.size(); ++k) {
      const uint64_t session = trace.requests[k].meta.session;
      const auto [at, fresh] =
          session == 0 ? std::pair(by_session.end(), true) : by_session.emplace(session, conversations_.size());
      if (fresh) conversations_.emplace_back();
      (session == 0 ? conversations_.back() : conversations_[at->second]).push_back(k);
    }
    users_.resize(std::min(static_cast<size_t>(loop_.users), conversations_.size()));
    for (size_t u = 0; u < users_.size(); ++u) Begin(u, Instant());
  }

  // Instant::Max(): nobody is ready before one of the requests out there ends.
  Instant NextAt() const { return ready_.empty() ? Instant::Max() : ready_.top().at; }
  // Index of the request that comes at NextAt().
  size_t Take() {
    const size_t u = ready_.top().user;
    ready_.pop();
    const size_t request = conversations_[users_[u].conversation][users_[u].turn];
    user_of_[request] = u;
    return request;
  }
  // A request ended, however it did.
  void OnEnded(size_t request, Instant at) {
    const size_t u = user_of_[request];
    User& user = users_[u];
    if (++user.turn < conversations_[user.conversation].size()) return Ready(u, at);
    Begin(u, at);
  }

 private:
  struct User {
    size_t conversation = 0;
    size_t turn = 0;
  };
  struct ReadyUser {
    Instant at;
    size_t user = 0;
    bool operator>(const ReadyUser& o) const { return at != o.at ? at > o.at : user > o.user; }
  };

  // The next conversation, if there is one left.
  void Begin(size_t u, Instant now) {
    if (next_ == conversations_.size()) return;
    users_[u] = {next_++, 0};
    Ready(u, now);
  }
  void Ready(size_t u, Instant now) {
    const size_t request = conversations_[users_[u].conversation][users_[u].turn];
    Prng prng = Prng::ForStream(seed_ ^ 0x7111, request);
    const double think = loop_.think_mean > Duration() ? prng.Exponential(loop_.think_mean.seconds()) : 0;
    ready_.push({now + Duration::FromSeconds(think), u});
  }

  ClosedLoop loop_;
  uint64_t seed_;
  std::vector<std::vector<size_t>> conversations_;  // requests of each, in order
  size_t next_ = 0;
  std::vector<User> users_;
  std::vector<size_t> user_of_;
  std::priority_queue<ReadyUser, std::vector<ReadyUser>, std::greater<>> ready_;
};

}  // namespace foretoken
