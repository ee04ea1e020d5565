// One actor at a time, with scripted peers, in virtual time.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <variant>

#include "actors/instance.h"
#include "actors/link.h"
#include "actors/scheduler.h"
#include "actors/simulator.h"
#include "tests/testing/random_runs.h"
#include "tests/testing/sim_cluster.h"

namespace foretoken {
namespace {

using testing::Inbox;
using testing::Relay;
using testing::SimCluster;
using testing::SpawnProbe;

Instant At(int64_t millis) { return Instant() + Duration::Millis(millis); }

RequestPtr Request(uint64_t id) {
  RequestMeta m;
  m.id = RequestId(id);
  m.prompt_tokens = TokenCount(100);
  return std::make_shared<const RequestMeta>(m);
}

Prediction Foretold(uint32_t instance, int64_t e2e_millis) {
  Prediction p;
  p.instance = InstanceId(instance);
  p.ttft = p.ttft_p90 = Duration::Millis(e2e_millis / 2);
  p.e2e = p.e2e_p90 = Duration::Millis(e2e_millis);
  return p;
}

// A SCHEDULER between scripted SIMULATORs, INSTANCEs and a client.
struct SchedulerRig {
  using SimulatorInbox = Inbox<PredictCall, EnqueueCall, Cancel>;
  using InstanceInbox = Inbox<DispatchCall, Cancel>;
  using ClientInbox = Inbox<DecisionNote, RejectNote>;

  SimCluster sim;
  std::vector<std::shared_ptr<SimulatorInbox>> asked;
  std::vector<std::shared_ptr<InstanceInbox>> dispatched;
  std::shared_ptr<ClientInbox> told = std::make_shared<ClientInbox>();
  std::vector<caf::actor> simulators, instances;
  caf::actor client, scheduler;
  std::vector<DecisionRecord> decisions;

  explicit SchedulerRig(uint32_t n, size_t open_rounds_max = 1024) {
    SchedulerActorOptions o;
    o.core.policy = "min_e2e";
    o.core.decision_deadline = Duration::Millis(5);
    o.lengths = std::move(MakeLengthEstimator(LengthEstimatorKind::kSampled)).value();
    o.open_rounds_max = open_rounds_max;
    o.on_decision = [this](const DecisionRecord& d) { decisions.push_back(d); };
    for (uint32_t k = 0; k < n; ++k) {
      asked.push_back(std::make_shared<SimulatorInbox>());
      dispatched.push_back(std::make_shared<InstanceInbox>());
      simulators.push_back(SpawnProbe(sim.system(), asked.back()));
      instances.push_back(SpawnProbe(sim.system(), dispatched.back()));
      o.simulators.push_back({simulators.back(), InstanceId(k), 1});
      o.infos.push_back({});
    }
    o.instances = instances;
    client = SpawnProbe(sim.system(), told);
    scheduler = *SpawnScheduler(sim.system(), sim.clock(), std::move(o));
  }
  ~SchedulerRig() {
    for (const auto* actors : {&simulators, &instances})
      for (const caf::actor& a : *actors) caf::anon_send_exit(a, caf::exit_reason::kill);
    caf::anon_send_exit(client, caf::exit_reason::kill);
    caf::anon_send_exit(scheduler, caf::exit_reason::kill);
  }
  template <class M>
  void From(const caf::actor& whom, M message) {
    sim.Send(whom, Relay{scheduler, caf::make_message(std::move(message))});
  }
  void Schedule(uint64_t id) { From(client, ScheduleCall{Request(id), sim.now()}); }
  void Answer(uint32_t k, int64_t e2e_millis) {
    From(simulators[k], PredictedReply{asked[k]->Of<PredictCall>().back().decision, {Foretold(k, e2e_millis)}, {}});
  }
  void Accept(uint32_t k) {
    From(simulators[k], EnqueueReply{asked[k]->Of<EnqueueCall>().back().order.decision, InstanceId(k), true, {}, {}});
  }
  SchedulerStatus Status() { return sim.Ask<SchedulerStatus>(scheduler, StatusQuery{}); }
};

TEST(SchedulerActorTest, AsksAllReservesAtTheBestAndDispatchesThere) {
  SchedulerRig rig(3);
  rig.Schedule(1);
  for (const auto& box : rig.asked) ASSERT_EQ(box->Of<PredictCall>().size(), 1u);
  rig.Answer(0, 300);
  rig.Answer(1, 100);
  EXPECT_TRUE(rig.told->messages.empty());  // one is still to come
  rig.Answer(2, 200);
  ASSERT_EQ(rig.asked[1]->Of<EnqueueCall>().size(), 1u);
  EXPECT_TRUE(rig.dispatched[1]->messages.empty());  // not before the reservation
  rig.Accept(1);
  ASSERT_EQ(rig.dispatched[1]->Of<DispatchCall>().size(), 1u);
  const auto notes = rig.told->Of<DecisionNote>();
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_EQ(notes[0].decision.placement, (std::vector<Placement>{{InstanceId(1), PlacementRole::kWhole}}));
  EXPECT_EQ(notes[0].decision.predictor, PredictorKind::kTimeline);
}

TEST(SchedulerActorTest, LateReplyAfterDeadlineIsCountedNotUsed) {
  SchedulerRig rig(2);
  rig.Schedule(1);
  rig.Answer(0, 300);
  rig.sim.RunUntil(rig.sim.now() + Duration::Millis(5));  // instance 1 is late
  ASSERT_EQ(rig.asked[0]->Of<EnqueueCall>().size(), 1u);
  EXPECT_FALSE(rig.asked[0]->Of<EnqueueCall>()[0].order.guarded);  // nothing would end a wait past the deadline
  ASSERT_EQ(rig.dispatched[0]->Of<DispatchCall>().size(), 1u);
  EXPECT_EQ(rig.decisions[0].unanswered, 1);
  rig.Answer(1, 1);  // would have won
  EXPECT_TRUE(rig.dispatched[1]->messages.empty());
  EXPECT_EQ(rig.Status().counters.late_replies, 1u);
  EXPECT_EQ(rig.Status().counters.decisions, 1u);
}

TEST(SchedulerActorTest, NoAnswerAtAllIsDecidedByLedgerAtTheDeadline) {
  SchedulerRig rig(2);
  rig.Schedule(1);
  rig.sim.RunUntil(At(4));
  EXPECT_TRUE(rig.told->messages.empty());
  rig.sim.RunUntil(At(6));
  ASSERT_EQ(rig.told->Of<DecisionNote>().size(), 1u);
  EXPECT_EQ(rig.told->Of<DecisionNote>()[0].decision.predictor, PredictorKind::kLedger);
  EXPECT_EQ(rig.Status().counters.by_ledger, 1u);
  EXPECT_EQ(rig.decisions[0].at, At(5));
}

TEST(SchedulerActorTest, AKilledSimulatorCompletesOpenAndLaterRoundsWithoutIt) {
  SchedulerRig rig(2);
  rig.Schedule(1);
  rig.Answer(1, 100);
  rig.sim.Kill(rig.simulators[0]);
  ASSERT_EQ(rig.asked[1]->Of<EnqueueCall>().size(), 1u);  // the round did not wait for its deadline
  EXPECT_EQ(rig.sim.now(), Instant());
  rig.Accept(1);
  EXPECT_EQ(rig.decisions.at(0).unanswered, 1);
  rig.Schedule(2);
  rig.Answer(1, 100);
  EXPECT_EQ(rig.decisions.size() + rig.asked[1]->Of<EnqueueCall>().size(), 3u);
  EXPECT_EQ(rig.Status().simulators_down, 1u);
}

TEST(SchedulerActorTest, WithAllSimulatorsDeadRequestsAreStillPlaced) {
  SchedulerRig rig(2);
  rig.sim.Kill(rig.simulators[0]);
  rig.sim.Kill(rig.simulators[1]);
  for (uint64_t id = 1; id <= 4; ++id) rig.Schedule(id);
  EXPECT_EQ(rig.told->Of<DecisionNote>().size(), 4u);
  EXPECT_EQ(rig.dispatched[0]->messages.size(), 2u);  // by least outstanding work
  EXPECT_EQ(rig.dispatched[1]->messages.size(), 2u);
  EXPECT_EQ(rig.Status().counters.by_ledger, 4u);
}

TEST(SchedulerActorTest, RoundsBeyondTheLimitWaitTheirTurn) {
  SchedulerRig rig(1, 1);
  rig.Schedule(1);
  rig.Schedule(2);
  EXPECT_EQ(rig.asked[0]->Of<PredictCall>().size(), 1u);
  EXPECT_EQ(rig.Status().queued, 1u);
  rig.Answer(0, 10);
  rig.Accept(0);
  EXPECT_EQ(rig.asked[0]->Of<PredictCall>().size(), 2u);
}

TEST(SchedulerActorTest, AnIdInUseIsRefusedNotPlacedTwice) {
  SchedulerRig rig(1);
  rig.Schedule(1);
  rig.Schedule(1);
  EXPECT_EQ(rig.told->Of<RejectNote>().size(), 1u);
  EXPECT_EQ(rig.asked[0]->Of<PredictCall>().size(), 1u);
}

TEST(SchedulerActorTest, AClientThatLeavesDuringTheRoundIsCancelledAtItsInstance) {
  SchedulerRig rig(1);
  rig.Schedule(1);
  rig.From(rig.client, WithdrawCall{RequestId(1)});
  rig.Answer(0, 10);
  rig.Accept(0);
  ASSERT_EQ(rig.dispatched[0]->messages.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<DispatchCall>(rig.dispatched[0]->messages[0]));
  EXPECT_TRUE(std::holds_alternative<Cancel>(rig.dispatched[0]->messages[1]));
  rig.From(rig.instances[0],
           RequestOutcome{RequestId(1), InstanceId(0), OutcomeKind::kCancelled, OutcomeReason::kClientGone, {}, {}});
  EXPECT_EQ(rig.asked[0]->Of<Cancel>().size(), 1u);  // its reservation goes too
  EXPECT_EQ(rig.Status().assigned, 0u);
}

TEST(SchedulerActorTest, ARefusedRequestGoesElsewhere) {
  SchedulerRig rig(2);
  rig.Schedule(1);
  rig.Answer(0, 100);
  rig.Answer(1, 200);
  rig.Accept(0);
  rig.From(rig.instances[0],
           RequestOutcome{RequestId(1), InstanceId(0), OutcomeKind::kFailed, OutcomeReason::kNeverFits, {}, {}});
  ASSERT_EQ(rig.asked[1]->Of<PredictCall>().size(), 2u);
  rig.Answer(1, 200);
  rig.Accept(1);
  EXPECT_EQ(rig.dispatched[1]->Of<DispatchCall>().size(), 1u);
  EXPECT_EQ(rig.decisions.back().attempt, 1);
}

// ---- INSTANCE

struct InstanceRig {
  using StreamInbox = Inbox<StreamCall, RequestOutcome>;
  using OutcomeInbox = Inbox<TokenEvent, RequestOutcome>;
  SimCluster sim;
  std::shared_ptr<StreamInbox> stream = std::make_shared<StreamInbox>();
  std::shared_ptr<OutcomeInbox> to_client = std::make_shared<OutcomeInbox>(), to_scheduler = std::make_shared<OutcomeInbox>();
  caf::actor simulator = SpawnProbe(sim.system(), stream), client = SpawnProbe(sim.system(), to_client),
             scheduler = SpawnProbe(sim.system(), to_scheduler), instance;

  InstanceRig() {
    const RunOptions o = testing::RandomRunOptions(3, "min_e2e", PredictorKind::kTimeline);
    InstanceCore::Options c;
    c.instance = InstanceId(0);
    c.engine = o.instances[0].engine;
    c.heartbeat = Duration::Millis(250);
    const auto for_engine = [](const RequestMeta& r) {
      EngineRequest e;
      e.id = r.id;
      e.prompt_tokens = r.prompt_tokens.value();
      e.output_tokens = e.max_tokens = 5;
      return e;
    };
    instance = SpawnInstance(sim.system(), sim.clock(), {InstanceId(0), std::move(InstanceCore::Make(c)).value(), for_engine});
    sim.Send(instance, ConnectCall{simulator, simulator});
  }
  ~InstanceRig() {
    for (const caf::actor& a : {simulator, client, scheduler, instance}) caf::anon_send_exit(a, caf::exit_reason::kill);
  }
  void Dispatch(uint64_t id) {
    sim.Send(scheduler, Relay{instance, caf::make_message(DispatchCall{DecisionId(id), InstanceId(0), Request(id), client})});
  }
};

TEST(InstanceActorTest, StreamsNumberedMessagesAndTellsClientAndScheduler) {
  InstanceRig rig;
  rig.Dispatch(1);
  rig.sim.RunUntil(At(2000));
  const auto sent = rig.stream->Of<StreamCall>();
  ASSERT_GT(sent.size(), 8u);
  EXPECT_TRUE(std::holds_alternative<Hello>(sent[0].message.body));
  for (size_t k = 0; k < sent.size(); ++k) EXPECT_EQ(sent[k].message.seq, k);
  for (const auto* box : {rig.to_client.get(), rig.to_scheduler.get()}) {
    ASSERT_EQ(box->Of<TokenEvent>().size(), 1u);
    ASSERT_EQ(box->Of<RequestOutcome>().size(), 1u);
    EXPECT_EQ(box->Of<RequestOutcome>()[0].output_tokens, TokenCount(5));
    EXPECT_GT(box->Of<RequestOutcome>()[0].at, box->Of<TokenEvent>()[0].at);
  }
}

TEST(InstanceActorTest, ARepeatedDispatchRunsOnce) {
  InstanceRig rig;
  rig.Dispatch(1);
  rig.Dispatch(1);
  rig.sim.RunUntil(At(2000));
  EXPECT_EQ(rig.to_client->Of<RequestOutcome>().size(), 1u);
}

TEST(InstanceActorTest, ARestartFailsWhatItHeldAndBeginsANewEpoch) {
  InstanceRig rig;
  rig.Dispatch(1);
  rig.sim.RunUntil(At(3));
  rig.sim.Send(rig.instance, RestartCall{Duration::Millis(100)});
  const auto outcomes = rig.to_scheduler->Of<RequestOutcome>();
  ASSERT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes[0].reason, OutcomeReason::kEngineRestarted);
  EXPECT_TRUE(rig.to_client->Of<RequestOutcome>().empty());  // the SCHEDULER decides again
  rig.Dispatch(2);
  EXPECT_EQ(rig.to_scheduler->Of<RequestOutcome>().back().reason, OutcomeReason::kEngineDown);
  rig.sim.RunUntil(At(1000));
  EXPECT_EQ(rig.stream->Of<StreamCall>().back().message.epoch, Epoch(2));
}

// ---- LINK

TEST(LinkActorTest, DelaysReordersRepeatsAndLosesAsItsSeedSays) {
  const auto run = [](uint64_t seed) {
    SimCluster sim;
    auto inbox = std::make_shared<Inbox<Tick>>();
    const caf::actor to = SpawnProbe(sim.system(), inbox);
    LinkFaults f;
    f.delay.kind = DelayLaw::Kind::kUniform;
    f.delay.min = Duration::Millis(1);
    f.delay.max = Duration::Millis(9);
    f.drop_probability = 0.2;
    f.duplicate_probability = 0.2;
    const caf::actor link = SpawnLink(sim.system(), sim.clock(), {std::move(Link::Make(f, seed)).value(), to, 0});
    for (int64_t k = 0; k < 50; ++k) {
      sim.RunUntil(At(k));
      sim.Send(link, Tick{At(k)});
    }
    EXPECT_LT(inbox->messages.size(), 60u);
    sim.RunUntil(At(100));
    const LinkCounters counters = sim.Ask<LinkCounters>(link, StatusQuery{});
    EXPECT_EQ(inbox->messages.size(), 50 - counters.dropped + counters.duplicated);
    EXPECT_GT(counters.dropped, 0u);
    std::vector<int64_t> order;
    for (const Tick& t : inbox->Of<Tick>()) order.push_back(t.at.nanos());
    EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
    sim.Kill(link);
    sim.Kill(to);
    return order;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

// ---- SIMULATOR

TEST(SimulatorActorTest, AHostAnswersForThoseTargetsThatItHosts) {
  SimCluster sim;
  RunOptions o = testing::RandomRunOptions(1, "min_e2e", PredictorKind::kTimeline);
  SimulatorActorOptions options;
  auto resyncs = std::make_shared<Inbox<ResyncRequest>>();
  auto replies = std::make_shared<Inbox<PredictedReply, EnqueueReply>>();
  const caf::actor instance = SpawnProbe(sim.system(), resyncs), asker = SpawnProbe(sim.system(), replies);
  for (uint32_t k = 4; k < 7; ++k) {  // hosts 4, 5, 6
    InstanceProfile profile = o.instances[0].profile;
    profile.instance = InstanceId(k);
    auto lengths = std::move(o.make_lengths(1)).value();
    auto predictor = std::move(o.make_predictor(profile, lengths.get())).value();
    SimulatorCore::Options c;
    c.profile = profile;
    options.cores.push_back(std::make_unique<SimulatorCore>(c, std::move(predictor), std::move(lengths)));
    options.resync_to.push_back(instance);
  }
  const caf::actor host = SpawnSimulator(sim.system(), sim.clock(), std::move(options));
  PredictCall call{DecisionId(9), Request(1), {}, {InstanceId(1), InstanceId(4), InstanceId(6), InstanceId(8)}, sim.now()};
  call.query.request = call.request.get();
  sim.Send(asker, Relay{host, caf::make_message(call)});
  ASSERT_EQ(replies->Of<PredictedReply>().size(), 1u);
  const PredictedReply reply = replies->Of<PredictedReply>()[0];
  EXPECT_EQ(reply.decision, DecisionId(9));
  ASSERT_EQ(reply.predictions.size(), 2u);
  EXPECT_EQ(reply.predictions[0].instance, InstanceId(4));
  EXPECT_EQ(reply.predictions[1].instance, InstanceId(6));
  // A gap in one stream asks its instance, once, after gap_timeout.
  sim.Send(host, StreamCall{{InstanceId(5), SourceId(0), Epoch(1), 3, Aborted{RequestId(7), sim.now()}}});
  sim.RunUntil(At(49));
  EXPECT_TRUE(resyncs->messages.empty());
  sim.RunUntil(At(51));
  ASSERT_EQ(resyncs->Of<ResyncRequest>().size(), 1u);
  EXPECT_EQ(resyncs->Of<ResyncRequest>()[0], (ResyncRequest{InstanceId(5), SourceId(0), Epoch(1), 0, false}));
  for (const caf::actor& a : {instance, asker, host}) sim.Kill(a);
}

}  // namespace
}  // namespace foretoken
