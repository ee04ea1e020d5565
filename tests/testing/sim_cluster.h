// SimCluster: the real actors in virtual time, on one thread, under CAF's test coordinator: no worker threads, jobs in the order of
// arrival, time that stands still until it is moved to the next timer. Same inputs, same run.
#pragma once

#include <caf/all.hpp>
#include <caf/scheduler/test_coordinator.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "actors/client.h"
#include "actors/cluster.h"
#include "actors/host_clock.h"
#include "actors/protocol.h"
#include "runtime/base/result.h"
#include "runtime/eval/virtual_host.h"
#include "runtime/workload/trace.h"

namespace foretoken::testing {

class SimCluster {
 public:
  SimCluster();
  ~SimCluster();

  caf::actor_system& system() { return system_; }
  const HostClock& clock() const { return clock_; }
  Instant now() const { return clock_.Now(); }

  // Lets every actor handle what is in its mailbox; time stands still.
  void Drain() { coordinator_.run(); }
  // Everything up to and including `until`, timer by timer.
  void RunUntil(Instant until);
  // Called by RunUntil whenever all actors have handled what one timer caused.
  void AfterEachEvent(std::function<void()> check) { after_event_ = std::move(check); }
  // Sends now and drains.
  template <class M>
  void Send(const caf::actor& to, M message) {
    caf::anon_send(to, std::move(message));
    Drain();
  }
  // The answer to a question that an actor answers at once.
  template <class Answer, class Question>
  Answer Ask(const caf::actor& whom, Question question) {
    caf::scoped_actor self(system_);
    self->send(whom, std::move(question));
    Drain();
    Answer answer{};
    self->receive([&answer](const Answer& a) { answer = a; });
    return answer;
  }
  void Kill(const caf::actor& actor) {
    caf::anon_send_exit(actor, caf::exit_reason::kill);
    Drain();
  }

 private:
  struct Config : caf::actor_system_config {
    Config();
  };
  Config config_;
  caf::actor_system system_;
  caf::scheduler::test_coordinator& coordinator_;
  HostClock clock_;
  std::function<void()> after_event_;
};

// An actor that keeps what it is sent, of the types named, in order; a scripted peer sends through it so as to be the sender.
template <class... Ms>
struct Inbox {
  std::vector<std::variant<Ms...>> messages;
  template <class M>
  std::vector<M> Of() const {
    std::vector<M> of;
    for (const auto& m : messages)
      if (const M* x = std::get_if<M>(&m)) of.push_back(*x);
    return of;
  }
};
// Forwarded by a probe to `to`, with the probe as its sender.
struct Relay {
  caf::actor to;
  caf::message message;
};

template <class... Ms>
caf::actor SpawnProbe(caf::actor_system& system, const std::shared_ptr<Inbox<Ms...>>& inbox) {
  // With an argument: CAF 0.17 reads a null pointer for a function that is spawned without one (harmless, but it aborts here).
  const auto probe = [](caf::event_based_actor* self, const std::shared_ptr<Inbox<Ms...>>& box) -> caf::behavior {
    return {[self](const Relay& r) { self->send(r.to, r.message); }, [box](const Ms& m) { box->messages.emplace_back(m); }...};
  };
  return system.spawn(probe, inbox);
}

struct ActorRun {
  std::vector<DecisionRecord> decisions;  // in order
  ClientLog client;
  SchedulerStatus scheduler;   // of the first SCHEDULER
  SimulatorStatus simulators;  // summed over the hosts
};

// As RunVirtual, on real actors: same options and trace, same decisions. `shard_size`: SIMULATORs per actor.
Result<ActorRun> RunOnActors(const RunOptions& options, const Trace& trace, size_t shard_size);

}  // namespace foretoken::testing

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(foretoken::testing::Relay)
