// Who belongs to a fleet, and that a fleet which changes all the time loses no request and gives none to who is leaving.
#include "runtime/cluster/membership.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "runtime/base/prng.h"
#include "runtime/sched/scheduler_core.h"
#include "tests/testing/inputs.h"

namespace foretoken {
namespace {

TEST(MembershipTest, AddingTwiceIsAddingOnce) {
  Membership m;
  EXPECT_TRUE(m.Add("http://a:1", MemberSource::kCommand, InstanceId(0)).fresh);
  const auto again = m.Add("http://a:1", MemberSource::kCommand, InstanceId(1));
  EXPECT_FALSE(again.changed);
  EXPECT_EQ(again.id, InstanceId(0));
  EXPECT_EQ(m.members().size(), 1u);
}

TEST(MembershipTest, OneThatLeavesIsGoneWhenItIsEmptyAndItsNumberIsNeverAnothers) {
  Membership m;
  m.Add("a", MemberSource::kCommand, InstanceId(0));
  EXPECT_FALSE(m.OnEmpty(InstanceId(0)));  // nobody wants it gone
  EXPECT_TRUE(m.Remove(InstanceId(0), MemberSource::kCommand).changed);
  EXPECT_FALSE(m.Remove(InstanceId(0), MemberSource::kCommand).changed);
  EXPECT_EQ(m.Find(InstanceId(0))->state, InstanceState::kDraining);
  EXPECT_TRUE(m.OnEmpty(InstanceId(0)));
  EXPECT_EQ(m.Find(InstanceId(0)), nullptr);
  EXPECT_TRUE(m.HasLeft("0"));
  EXPECT_TRUE(m.HasLeft("a"));
  EXPECT_FALSE(m.HasLeft("7"));
  EXPECT_TRUE(m.Add("a", MemberSource::kCommand, InstanceId(1)).fresh);
  EXPECT_NE(m.Named("0").ok(), true);
  EXPECT_NE(m.Named("0").error().message.find("not used again"), std::string::npos);
}

TEST(MembershipTest, AddedAgainBeforeItWasGoneItStays) {
  Membership m;
  m.Add("a", MemberSource::kCommand, InstanceId(0));
  m.Remove(InstanceId(0), MemberSource::kCommand);
  const auto back = m.Add("a", MemberSource::kCommand, InstanceId(1));
  EXPECT_TRUE(back.changed);
  EXPECT_FALSE(back.fresh);
  EXPECT_EQ(m.Find(InstanceId(0))->state, InstanceState::kServing);
  EXPECT_FALSE(m.OnEmpty(InstanceId(0)));
}

TEST(MembershipTest, ItStaysWhileAnySourceWantsIt) {
  Membership m;
  m.Add("a", MemberSource::kFile, InstanceId(0));
  m.Add("a", MemberSource::kDns, InstanceId(1));
  EXPECT_FALSE(m.Remove(InstanceId(0), MemberSource::kFile).changed);
  EXPECT_TRUE(m.Remove(InstanceId(0), MemberSource::kDns).changed);
  m.Add("b", MemberSource::kFile, InstanceId(1));
  m.Add("b", MemberSource::kDns, InstanceId(2));
  EXPECT_TRUE(m.Remove(InstanceId(1), MemberSource::kCommand).changed);  // an operator speaks for all
}

TEST(MembershipTest, AListIsComparedWithWhatItsSourceNamedBefore) {
  Membership m;
  m.Add("command", MemberSource::kCommand, InstanceId(0));
  m.Add("stays", MemberSource::kFile, InstanceId(1));
  m.Add("goes", MemberSource::kFile, InstanceId(2));
  const auto d = m.Compare({"stays", "comes", "command"}, MemberSource::kFile);
  EXPECT_EQ(d.join, (std::vector<std::string>{"comes", "command"}));
  EXPECT_EQ(d.leave, std::vector<InstanceId>{InstanceId(2)});
}

TEST(MembershipTest, TheStateOfOneThatLeavesIsNotTheOperators) {
  Membership m;
  m.Add("a", MemberSource::kCommand, InstanceId(0));
  EXPECT_TRUE(m.SetState(InstanceId(0), InstanceState::kCordoned).ok());
  m.Remove(InstanceId(0), MemberSource::kCommand);
  const auto refused = m.SetState(InstanceId(0), InstanceState::kServing);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("add it again"), std::string::npos);
}

TEST(MembershipTest, AnAddressThatAnotherTakesHasTwoMembersUntilTheOldOneIsEmpty) {
  Membership m;
  m.Add("a", MemberSource::kFile, InstanceId(0));
  m.OnReplaced(InstanceId(0));
  EXPECT_TRUE(m.Add("a", MemberSource::kFile, InstanceId(1)).fresh);
  EXPECT_EQ(m.Find("a")->id, InstanceId(1));
  EXPECT_TRUE(m.OnEmpty(InstanceId(0)));
}

// ---- A fleet that changes all the time.

class FixedLength final : public LengthEstimator {
 public:
  TokenCount Total(const LengthKey&, TokenCount generated) const override {
    return TokenCount(std::max<int64_t>(50, generated.value() + 1));
  }
  void Learn(uint32_t, TokenCount) override {}
  uint64_t version() const override { return 0; }
};

// A SCHEDULER over instances that come and go; their SIMULATORs and engines are scripted. What it may not do is checked as it does it.
class Fleet final : public SchedulerEffects {
 public:
  Fleet(uint64_t seed, const char* policy) : prng_(Prng::ForStream(seed, 7)) {
    SchedulerCore::Options o;
    o.policy = policy;
    o.seed = seed;
    o.retry_max = 1'000;  // what is tested is membership
    o.retry_max_crash = 1'000;
    o.down_backoff = Duration();
    o.decision_deadline = seed % 2 == 0 ? Duration::Seconds(3) : Duration::Millis(5);
    for (int i = 0; i < 3; ++i)
      members_.Add("start-" + std::to_string(i), MemberSource::kCommand, InstanceId(static_cast<uint32_t>(i)));
    core_ = std::move(SchedulerCore::Make(o, std::vector<SchedulerCore::InstanceInfo>(3), &lengths_)).value();
  }

  void Run() {
    for (int step = 0; step < 400; ++step) {
      now_ += Duration::FromSeconds(prng_.Unit() * 0.2);
      const double what = prng_.Unit();
      if (what < 0.4) {
        Arrive();
      } else if (what < 0.6) {
        AnswerOne();
      } else if (what < 0.8) {
        EndOne();
      } else {
        Change();
      }
    }
    // Room for everybody, and time: nothing may be left.
    Join("last");
    for (int round = 0; round < 10'000 && (!questions_.empty() || !running_.empty() || !replies_.empty()); ++round) {
      now_ += Duration::Millis(50);
      AnswerOne();
      EndOne();
    }
    EXPECT_TRUE(running_.empty());
    EXPECT_EQ(core_->open_rounds(), 0u);
    EXPECT_EQ(ended_.size() + refused_.size(), requests_.size());
    EXPECT_EQ(core_->ledger().assigned(), 0u);
  }

  size_t refused() const { return refused_.size(); }

 private:
  bool Serving(InstanceId id) const {
    const auto* m = members_.Find(id);
    return m != nullptr && m->state == InstanceState::kServing;
  }
  bool AnyServing() const {
    return std::any_of(members_.members().begin(), members_.members().end(),
                       [](auto& m) { return m.second.state == InstanceState::kServing; });
  }
  void Arrive() {
    const uint64_t id = next_request_++;
    RequestMeta r;
    r.id = RequestId(id);
    r.prompt_tokens = TokenCount(prng_.Between(1, 500));
    core_->OnSchedule(requests_.emplace(id, r).first->second, now_, *this);
  }
  Prediction PredictionOf(InstanceId i) {
    Prediction p;
    p.instance = i;
    p.ttft = p.ttft_p90 = Duration::Millis(prng_.Between(1, 900));
    p.e2e = p.e2e_alone = p.e2e_p90 = p.ttft * 3;
    p.tpot = Duration::Millis(prng_.Between(1, 90));
    return p;
  }
  void AnswerOne() {
    if (!replies_.empty()) {
      const auto [decision, instance] = replies_.front();
      replies_.erase(replies_.begin());
      return core_->OnEnqueueReply({decision, instance, prng_.Chance(0.7), {}, PredictionOf(instance)}, now_, *this);
    }
    if (questions_.empty()) return;
    const size_t k = prng_.Below(questions_.size());
    const auto [decision, targets] = questions_[k];
    questions_.erase(questions_.begin() + static_cast<std::ptrdiff_t>(k));
    if (prng_.Chance(0.2)) return core_->OnDeadline(decision, now_, *this);
    for (const InstanceId t : targets) core_->OnPrediction(decision, PredictionOf(t), now_, *this);
  }
  void EndOne() {
    if (running_.empty()) return;
    auto at = std::next(running_.begin(), static_cast<std::ptrdiff_t>(prng_.Below(running_.size())));
    const auto [id, instance] = *at;
    running_.erase(at);
    const RequestMeta& r = requests_.at(id);
    if (prng_.Chance(0.1)) {
      core_->OnEngineFailure(r, prng_.Chance(0.5) ? OutcomeReason::kEngineRestarted : OutcomeReason::kEngineDown, now_, *this);
    } else {
      core_->OnFirstToken(r.id, now_);
      core_->OnFinished(r.id, TokenCount(prng_.Between(1, 100)), now_ + Duration::Millis(500));
      ended_.insert(id);
    }
    Empty(instance);
  }
  void Empty(InstanceId instance) {
    const bool empty = std::none_of(running_.begin(), running_.end(), [&](auto& r) { return r.second == instance; });
    if (empty && members_.OnEmpty(instance)) core_->RemoveInstance(instance);
  }
  void Join(const std::string& name) {
    const auto change = members_.Add(name, MemberSource::kCommand, InstanceId(next_id_));
    if (change.fresh) {
      EXPECT_EQ(core_->AddInstance({}), change.id);
      ++next_id_;
    }
    core_->SetState(change.id, members_.Find(change.id)->state);
    core_->BeginSlowStart(change.id, now_);
  }
  void Change() {
    const auto& all = members_.members();
    const double what = prng_.Unit();
    if (what < 0.35 || all.empty()) return Join("n" + std::to_string(prng_.Below(12)));
    const InstanceId id = std::next(all.begin(), static_cast<std::ptrdiff_t>(prng_.Below(all.size())))->first;
    if (what < 0.65) {
      members_.Remove(id, MemberSource::kCommand);
    } else if (what < 0.95) {
      const InstanceState states[] = {InstanceState::kCordoned, InstanceState::kServing, InstanceState::kDraining};
      static_cast<void>(members_.SetState(id, states[prng_.Below(3)]));
    } else {
      members_.OnReplaced(id);
    }
    core_->SetState(id, members_.Find(id)->state);
    Empty(id);
  }

  // SchedulerEffects
  void SendPredict(DecisionId d, std::span<const InstanceId> targets, const PredictQuery&) override {
    for (const InstanceId t : targets) EXPECT_TRUE(Serving(t)) << "asked " << t.value();
    questions_.emplace_back(d, std::vector<InstanceId>(targets.begin(), targets.end()));
  }
  void SendEnqueue(const EnqueueOrder& o) override {
    EXPECT_TRUE(Serving(o.instance));
    if (o.guarded) replies_.emplace_back(o.decision, o.instance);
  }
  void SendCancel(InstanceId, RequestId) override {}
  void Dispatch(InstanceId i, const RequestMeta& r) override {
    EXPECT_TRUE(Serving(i)) << "request " << r.id.value() << " went to instance " << i.value() << ", which takes nothing new";
    EXPECT_TRUE(running_.emplace(r.id.value(), i).second);
  }
  void Reject(RequestId r, OutcomeReason) override {
    // Nobody is there, or all who are have failed it.
    EXPECT_TRUE(refused_.insert(r.value()).second);
    EXPECT_EQ(ended_.count(r.value()), 0u);
  }
  void Decided(const DecisionRecord&) override {}
  void ArmDeadline(DecisionId, Instant) override {}

  Prng prng_;
  FixedLength lengths_;
  Membership members_;
  std::unique_ptr<SchedulerCore> core_;
  Instant now_ = Instant() + Duration::Seconds(1'000);
  uint32_t next_id_ = 3;
  uint64_t next_request_ = 1;
  std::map<uint64_t, RequestMeta> requests_;
  std::map<uint64_t, InstanceId> running_;
  std::set<uint64_t> ended_, refused_;
  std::vector<std::pair<DecisionId, std::vector<InstanceId>>> questions_;
  std::vector<std::pair<DecisionId, InstanceId>> replies_;
};

TEST(MembershipTest, AFleetThatChangesAllTheTimeLosesNoRequest) {
  for (const char* policy : {"min_e2e", "auto", "least_requests"}) {
    for (const uint64_t seed : testing::Seeds(300)) {
      SCOPED_TRACE(std::string(policy) + ", seed " + std::to_string(seed));
      Fleet fleet(seed, policy);
      fleet.Run();
      if (::testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace foretoken
